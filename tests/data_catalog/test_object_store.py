"""Catalogues in a bucket: everything that works in a folder, and publishers that race."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import obstore
import pandas as pd
import pystac
import pytest
from ingesting import S2, add_granule, leave_an_ingest_half_done, plan, run
from killed_publishing import PLACES, Reader, nights_of
from object_server import SECRET, environment, read_only
from obstore.store import S3Store
from published_world import index, make_model, publish_segment, random_codes, tiles
from racing_publishers import TILES, publish_night, race
from tiny_source import TinySource

from data_catalog import orphans
from data_catalog.api_records import ApiRecords
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, collection_of, publish_code_tables
from data_catalog.errors import CatalogueError
from data_catalog.garbage import garbage, remove
from data_catalog.models import load_model, publish_model
from data_catalog.observations import current_observations, read_tiles
from data_catalog.planning import KEEP_DAYS
from data_catalog.query import open_codes
from data_catalog.rollback import roll_back
from data_catalog.service.snapshots import open_snapshot
from data_catalog.verification import verify

PROCESSES = multiprocessing.get_context("forkserver")
ROUNDS = 6
KILLS = 8

pytestmark = pytest.mark.usefixtures("impatient")


def objects(catalogue: Catalogue) -> dict[str, bytes]:
    with catalogue.store.copied(".") as root:
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }


def elsewhere(address: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Catalogue:
    """The catalogue as another machine opens it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return Catalogue.open(address)


def test_published_here_and_read_on_another_machine(
    bucket: str, source: TinySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://{bucket}/some/place"
    here = Catalogue.open_or_create(address)
    here.check_writable()
    add_granule(source, "first")
    planned = plan(here, source)
    segment_id = run(here, planned)
    local = Catalogue.create(tmp_path / "folder")
    assert run(local, plan(local, source)) == segment_id
    assert plan(here, source).is_empty
    observed = current_observations(here, S2)
    rows = code_rows(observed, random_codes(len(observed)))
    model = make_model()
    publish_model(here, model)
    for seed in range(3):
        publish_code_tables(
            here, model, rows.assign(**{"code_0": random_codes(len(rows), seed=seed)[:, 0]})
        )

    there = elsewhere(address, monkeypatch, tmp_path / "another")
    assert there.root != here.root
    pd.testing.assert_frame_equal(current_observations(there, S2), current_observations(local, S2))
    for bands in (["red"], ["swir16", "red"]):
        np.testing.assert_array_equal(
            read_tiles(there, S2, observed, bands), read_tiles(local, S2, observed, bands)
        )
    assert not list(there.root.rglob("pixels.zarr"))
    assert load_model(there).model_id == model.model_id
    codes = open_codes(there)
    assert len(codes.similar(rows["tile_id"].iloc[0], 1)) == 1
    assert open_snapshot(there).codes.version == codes.version
    assert verify(there) == [] and not list(there.root.glob(".copy-*"))
    sent = ApiRecords(there, "https://stac.example.com")
    assert sent.collection(f"tiles-{S2}")["id"] == f"tiles-{S2}"
    record = sent.item(f"tiles-{S2}", segment_id)
    assert record["assets"]["index"]["href"].startswith(f"{address}/tiles-{S2}/{segment_id}/")

    collection = collection_of(model.model_id)
    first, second, third = there.versions(collection, there.item_ids(collection)[0])
    assert roll_back(there, first) == [{"item": first, "in_place_of": third}]
    assert here.item_ids(collection) == [first] and verify(here) == []
    found = garbage(there, keep=0)
    old = [f"{collection}/{second}", f"{collection}/{third}"]
    assert [one.name for one in found] == [*old, f".cache/assets/{old[1]}"]
    remove(there, found)
    copies = garbage(here)
    assert [one.name for one in copies] == [f".cache/assets/{name}" for name in old]
    remove(here, copies)
    assert garbage(here) == garbage(there) == []
    assert [path.name for path in here.root.glob(f".cache/assets/{collection}/*")] == [first]
    assert there.versions(collection, first) == [first] and verify(there) == []
    kept = objects(there)
    assert not [name for name in kept if second in name or third in name]
    assert not [name for name, content in kept.items() if b"rshash:claims" in content]
    for root in (here.root, there.root):
        files = [path for path in root.rglob("*") if path.is_file()]
        assert files and not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert not [name for name, content in kept.items() if SECRET.encode() in content]


def test_publishers_that_race_never_overwrite_one_another(
    bucket: str, s3_server: str, tmp_path: Path
) -> None:
    address = f"s3://{bucket}"
    catalogue = Catalogue.create(address)
    start = PROCESSES.Barrier(2)
    pipes, processes = [], []
    for who in ("one", "other"):
        here, there = PROCESSES.Pipe(duplex=False)
        settings = environment(s3_server, str(tmp_path / who))
        processes.append(
            PROCESSES.Process(target=race, args=(settings, address, who, ROUNDS, start, there))
        )
        processes[-1].start()
        there.close()
        pipes.append(here)
    results = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    winners = {}
    for who, (won, told) in zip(("one", "other"), results, strict=True):
        winners |= dict.fromkeys(won, who)
        assert sorted([*won, *told]) == list(range(ROUNDS))
        assert all("published" in text or "faster" in text for text in told.values())
    assert sum(len(won) for won, _ in results) == ROUNDS == len(winners)
    own = {f"own-{who}-{number}" for who in ("one", "other") for number in range(ROUNDS)}
    assert set(catalogue.item_ids(TILES)) == own | {f"wanted-v{ROUNDS}"}
    assert len(catalogue.item_ids(TILES)) == len(own) + 1
    for number, who in winners.items():
        item = catalogue.item(TILES, f"wanted-v{number + 1}")
        assert catalogue.asset_path(item, "data").read_text() == who
        assert item.properties.get("deprecated", False) == (number + 1 < ROUNDS)
    assert catalogue.collections() == [TILES] and verify(catalogue) == []


def test_publishing_to_a_bucket_that_is_killed_leaves_whole_versions_only(
    bucket: str, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://{bucket}/killed"
    catalogue = Catalogue.create(address)
    model = make_model()
    publish_model(catalogue, model)
    publish_segment(catalogue, "clouds", index(PLACES).assign(state="invalid", reason="cloud"))
    settings = environment(s3_server, str(tmp_path / "cache"))

    def run_night(number: int, moment: int | None = None, delay: float = 0.0) -> int | None:
        here, there = PROCESSES.Pipe(duplex=False)
        arguments = (settings, address, number, moment, delay, there)
        process = PROCESSES.Process(target=publish_night, args=arguments)
        process.start()
        there.close()
        try:
            return int(here.recv())
        except EOFError:
            return None
        finally:
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)

    run_night(1)
    writes = run_night(2)
    assert writes is not None
    chance, killed, newest = random.Random(7), 0, [2, 2]
    reader = Reader(address, model.model_id, pause=0.1)
    reader.start()
    for number in range(3, 3 + KILLS):
        moment, delay = chance.randrange(1, writes), chance.uniform(0.0, 0.02)
        killed += run_night(number, moment, delay) is None
        found = nights_of(address, model.model_id)
        assert all(now in (old, number) for now, old in zip(found, newest, strict=True))
        assert verify(catalogue) == []
        newest = found
    reader.end()
    assert reader.failure is None and reader.reads
    assert killed >= KILLS / 2 and max(newest) > 2
    run_night(100)
    assert nights_of(address, model.model_id) == [100, 100] and verify(catalogue) == []

    staged = catalogue.asset_folder("codes-cut-off", "cut-off-v1") / "codes.parquet"
    staged.write_bytes(b"codes")
    catalogue.store.keep("codes-cut-off/cut-off-v1", ["codes.parquet"])
    left = orphans.orphans(catalogue)
    assert "codes-cut-off/cut-off-v1" in left
    assert [one.name for one in garbage(catalogue)] == []
    monkeypatch.setattr(orphans, "SETTLED_SECONDS", -60)
    remove(catalogue, garbage(catalogue))
    assert orphans.orphans(catalogue) == []
    assert verify(catalogue) == [] and nights_of(address, model.model_id) == [100, 100]


def test_a_bucket_that_may_only_be_read_is_read(
    bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, model, places = f"s3://{bucket}", make_model(), tiles(5)
    catalogue = Catalogue.create(address)
    publish_model(catalogue, model)
    publish_code_tables(catalogue, model, code_rows(index(places), random_codes(5)))
    before = objects(catalogue)
    with read_only(s3_server) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        reader = elsewhere(address, monkeypatch, catalogue.root / "another")
        assert len(open_codes(reader).similar(places[0].id)) == 4
        rows = code_rows(index(places, "2024-06-05"), random_codes(5, seed=1))
        with pytest.raises(CatalogueError, match=r"these credentials \(AccessDenied\)"):
            reader.check_writable()
        with pytest.raises(CatalogueError, match=r"these credentials \(AccessDenied\)"):
            publish_code_tables(reader, model, rows)
    assert objects(catalogue) == before


def test_what_no_asset_names_is_not_uploaded(bucket: str) -> None:
    catalogue = Catalogue.create(f"s3://{bucket}")
    folder = catalogue.asset_folder("labels-one", "one")
    for name in ("data.txt", "chunks/0", "cut-off.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    item = pystac.Item("one", None, None, datetime.now(UTC), {})
    for name in ("data.txt", "chunks"):
        item.add_asset(name, pystac.Asset(f"./{name}"))
    catalogue.publish("labels-one", item)
    uploaded = {Path(name).name for name in objects(catalogue) if "/one/" in name}
    assert uploaded == {"one.json", "data.txt", "0", "checksums.sha256"}


def test_a_damaged_or_missing_file_is_never_taken_for_what_was_published(bucket: str) -> None:
    catalogue = Catalogue.create(f"s3://{bucket}")
    model = make_model()
    publish_code_tables(catalogue, model, code_rows(index(tiles(3)), random_codes(3)))
    shutil.rmtree(catalogue.root)
    item = catalogue.items(collection_of(model.model_id))[0]
    name = str(item.assets["embeddings"].get_absolute_href()).removeprefix(f"s3://{bucket}/")
    obstore.put(S3Store(bucket), name, b"something else")
    with pytest.raises(CatalogueError, match="other contents than were published"):
        catalogue.asset_path(item, "embeddings")
    assert [fault.file for fault in verify(catalogue, item.id)][-1] == name
    catalogue.store.remove(name)
    with pytest.raises(CatalogueError, match="NoSuchKey"):
        catalogue.asset_path(item, "embeddings")
    assert "is missing" in {fault.problem for fault in verify(catalogue, item.id)}


def test_a_version_that_another_machine_removes_meanwhile_is_not_gone_back_to(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (Catalogue.open_or_create(f"s3://{bucket}") for _ in range(2))
    model = make_model()
    for seed in range(2):
        publish_code_tables(here, model, code_rows(index(tiles(3)), random_codes(3, seed=seed)))
    collection = collection_of(model.model_id)
    first, second = here.versions(collection, here.item_ids(collection)[0])
    update = here.store.update_json

    def update_late(*arguments) -> None:
        remove(there, garbage(there, keep=0))
        update(*arguments)

    monkeypatch.setattr(here.store, "update_json", update_late)
    with pytest.raises(CatalogueError, match="is not published"):
        here.roll_back(collection, first)
    [item] = there.items(collection)
    assert item.id == second and "deprecated" not in item.properties


def test_what_an_ingest_left_on_this_machine_goes(bucket: str, source: TinySource) -> None:
    catalogue = Catalogue.create(f"s3://{bucket}")
    leave_an_ingest_half_done(catalogue, source)
    assert garbage(catalogue) == []
    long_ago = time.time() - (KEEP_DAYS + 1) * 86400
    for path in catalogue.root.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    found = garbage(catalogue)
    [segment_id] = {one.name.rpartition("/")[2] for one in found}
    assert [one.name for one in found] == [f".plans/{segment_id}", f"tiles-{S2}/{segment_id}"]
    remove(catalogue, found)
    assert not [path for path in catalogue.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "address",
    [
        "s3://",
        "s3://Bucket",
        "s3://bucket/a//b",
        "s3://bucket/../a",
        "s3://user:HIDDEN@bucket/a",
        "s3://bucket/a?key=HIDDEN",
        "gs://bucket/a",
    ],
)
def test_malformed_addresses_are_refused(address: str, bucket: str) -> None:
    with pytest.raises(CatalogueError, match="s3://bucket/prefix") as caught:
        Catalogue.open_or_create(address)
    assert "HIDDEN" not in str(caught.value)


def test_what_cannot_be_used_is_told_without_secrets(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CatalogueError, match="holds no catalogue"):
        Catalogue.open(f"s3://{bucket}")
    with pytest.raises(CatalogueError, match="NoSuchBucket") as caught:
        Catalogue.open_or_create("s3://no-such-bucket/a")
    assert SECRET not in str(caught.value)
    Catalogue.create(f"s3://{bucket}/taken/by/others")
    with pytest.raises(CatalogueError, match="is not empty"):
        Catalogue.open_or_create(f"s3://{bucket}/taken")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(CatalogueError, match="AWS_ACCESS_KEY_ID"):
        Catalogue.open(f"s3://{bucket}")
