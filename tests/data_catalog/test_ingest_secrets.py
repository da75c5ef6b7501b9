import json

import pytest
from ingesting import (
    S2,
    add_granule,
    run,
    two_tiles,
)
from tiny_source import TinySource

from data_catalog import byte_ranges
from data_catalog.catalogue import Catalogue
from data_catalog.errors import SourceError
from data_catalog.http_server import serve_folder
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.planning import plan_ingest

pytestmark = pytest.mark.usefixtures("impatient")


def test_no_signature_is_stored(
    catalogue: Catalogue, source: TinySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_granule(source, "first")
    add_granule(source, "broken", days=1)
    signed = []

    def sign(href: str, profile: str) -> str:
        signed.append(href)
        return href.replace(address, f"{address}") + "?sig=SECRET"

    monkeypatch.setattr(byte_ranges, "sign", sign)
    path = source.write()
    (source.folder / S2 / "broken" / "B04.tif").unlink()
    with serve_folder(path.parent) as address:
        where = f"{address}/catalog.json"
        planned = plan_ingest(
            catalogue, where, S2, two_tiles(), "2024", bands=["red"], minimum_clear=0.5
        )
        folder = planned.save(catalogue)
        report = ingest_block(folder, planned.block_ids[0])
    assert signed and "SECRET" not in json.dumps(report.failures)
    assert list(report.failures) == ["broken"] and report.valid == 2
    stored = [p for p in catalogue.root.rglob("*") if p.is_file()]
    assert stored and not [p for p in stored if b"SECRET" in p.read_bytes()]
    publish_segment(catalogue, planned)
    assert not [p for p in catalogue.root.rglob("*") if p.is_file() and b"SECRET" in p.read_bytes()]


def test_no_password_of_the_source_is_stored_or_told(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    path = source.write()
    with serve_folder(path.parent) as address:
        private = address.replace("://", "://joe:SECRET@")
        where, options = f"{private}/catalog.json?token=SECRET", {"bands": ["red"]}
        run(catalogue, plan_ingest(catalogue, where, S2, two_tiles(), "2024", **options))
        with pytest.raises(SourceError, match=f"^{address}/catalog.json has no") as nothing:
            plan_ingest(catalogue, where, S2, "0,0,1,1", "2024", **options)
        with pytest.raises(SourceError, match=f"'{address}/none.json' cannot be read") as nowhere:
            plan_ingest(catalogue, f"{private}/none.json", S2, two_tiles(), "2024", **options)
    assert "SECRET" not in f"{nothing.value} {nowhere.value}"
    assert not [p for p in catalogue.root.rglob("*") if p.is_file() and b"SECRET" in p.read_bytes()]
