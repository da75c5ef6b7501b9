import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from ingesting import S2
from published_world import index, make_model, random_codes, tiles
from two_blocks import ingest_two_blocks, two_scenes

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, collection_of, publish_code_tables
from data_catalog.errors import CatalogueError
from data_catalog.garbage import garbage, remove
from data_catalog.models import publish_model
from data_catalog.orphans import orphans
from data_catalog.query import open_codes
from data_catalog.verification import verify


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verified")
    catalogue = Catalogue.create(folder / "catalogue")
    ingest_two_blocks(catalogue, str(two_scenes(folder / "source").folder))
    model = make_model()
    publish_model(catalogue, model)
    for day in (1, 2):
        observations = index(tiles(10), f"2024-06-0{day}")
        publish_code_tables(catalogue, model, code_rows(observations, random_codes(10, seed=day)))
    return catalogue.root


@pytest.fixture
def catalogue(world: Path, tmp_path: Path) -> Catalogue:
    return Catalogue.open(shutil.copytree(world, tmp_path / "catalogue"))


def codes(catalogue: Catalogue) -> str:
    return collection_of(catalogue.model_id())


def table(catalogue: Catalogue) -> Path:
    [item] = catalogue.items(codes(catalogue))
    return Path(str(item.assets["embeddings"].get_absolute_href()))


def shards(catalogue: Catalogue) -> list[Path]:
    return sorted(catalogue.root.glob(f"tiles-{S2}/*/pixels.zarr/reflectance/c/*/0/0/0"))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def found(catalogue: Catalogue, item_id: str | None = None) -> dict[str, str]:
    return {fault.file: fault.problem for fault in verify(catalogue, item_id)}


def test_what_was_published_is_found_as_it_was(catalogue: Catalogue) -> None:
    seen: list[tuple[int, int]] = []
    assert verify(catalogue, None, lambda done, total: seen.append((done, total))) == []
    assert seen == [(i, 4) for i in range(1, 5)]
    assert orphans(catalogue) == []
    [item_id] = catalogue.item_ids(codes(catalogue))
    assert verify(catalogue, item_id) == []
    with pytest.raises(CatalogueError, match=r"Nothing in .* is called 'nothing'"):
        verify(catalogue, "nothing")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flip_a_byte, "its checksum differs"),
        (truncate, "but was published with"),
        (Path.unlink, "is missing"),
    ],
)
def test_a_damaged_file_is_named(catalogue: Catalogue, damage, says: str) -> None:
    [segment] = catalogue.items(f"tiles-{S2}")
    folder = Path(str(segment.get_self_href())).parent
    for path in (
        table(catalogue),
        catalogue.root / "models" / catalogue.model_id() / "weights.safetensors",
        folder / "index.parquet",
        folder / "checksums.sha256",
    ):
        before = path.read_bytes()
        damage(path)
        [(file, problem)] = found(catalogue).items()
        assert catalogue.root / file == path and says in problem
        path.write_bytes(before)
    assert found(catalogue) == {}


def test_a_damaged_shard_is_named(catalogue: Catalogue) -> None:
    one, other = shards(catalogue)
    flip_a_byte(one)
    other.unlink()
    faults = found(catalogue)
    assert set(faults) == {path.relative_to(catalogue.root).as_posix() for path in (one, other)}
    assert "checksum" in faults[one.relative_to(catalogue.root).as_posix()]


def without_checksums(catalogue: Catalogue) -> None:
    [segment] = catalogue.items(f"tiles-{S2}")
    path = Path(str(segment.get_self_href()))
    record = stac.read_json(path)
    del record["assets"]["checksums"]
    stac.write_json(path, record)


def test_valid_tiles_without_a_shard_are_named_where_there_are_no_checksums(
    catalogue: Catalogue,
) -> None:
    without_checksums(catalogue)
    assert found(catalogue) == {}
    shards(catalogue)[0].unlink()
    [problem] = found(catalogue).values()
    assert "it holds 64 valid tiles, such as UTM480-32N_" in problem
    (catalogue.root / f"tiles-{S2}").joinpath(
        catalogue.item_ids(f"tiles-{S2}")[0], "pixels.zarr", "zarr.json"
    ).unlink()
    assert "no readable pixels.zarr" in next(iter(found(catalogue).values()))


def republish_as_it_is(path: Path, asset: dict) -> None:
    asset["file:size"], asset["file:checksum"] = path.stat().st_size, stac.file_checksum(path)


def test_a_table_that_is_not_what_its_item_says_is_named(catalogue: Catalogue) -> None:
    path = table(catalogue)
    record_path = path.parent / f"{path.parent.name}.json"
    rows = pq.read_table(path)
    for content, says in (
        (rows.slice(0, 9), "has 9 rows, but its item says 10"),
        (rows.drop_columns("clear_fraction"), "other columns than its item says: clear_fraction"),
    ):
        pq.write_table(content, path)
        record = stac.read_json(record_path)
        republish_as_it_is(path, record["assets"]["embeddings"])
        stac.write_json(record_path, record)
        assert says in " ".join(found(catalogue).values())
    path.write_bytes(b"PAR1 but no more")
    record = stac.read_json(record_path)
    republish_as_it_is(path, record["assets"]["embeddings"])
    stac.write_json(record_path, record)
    assert "cannot be read as Parquet" in " ".join(found(catalogue).values())


def test_records_that_are_damaged_or_lead_nowhere_are_named(catalogue: Catalogue) -> None:
    model = catalogue.root / "models" / catalogue.model_id()
    shutil.rmtree(model)
    faults = found(catalogue)
    assert faults[f"models/{model.name}/{model.name}.json"] == "is missing, though models lists it"
    lost = f"has a link emb:model to models/{model.name}/{model.name}.json, which does not exist"
    assert lost in {fault.problem for fault in verify(catalogue)}
    superseded = next(catalogue.root.glob(f"{codes(catalogue)}/*-v1/*-v1.json"))
    superseded.write_text("{")
    problem = found(catalogue)[superseded.relative_to(catalogue.root).as_posix()]
    assert "is not valid JSON" in problem and "not current" in problem and "gc" not in problem
    pointer = catalogue.root / f"tiles-{S2}" / "collection.json"
    pointer.write_text("[")
    assert "is not valid JSON" in found(catalogue)[f"tiles-{S2}/collection.json"]
    pointer.unlink()
    assert "is missing" in found(catalogue)[f"tiles-{S2}/collection.json"]
    (catalogue.root / "catalog.json").write_text(json.dumps({"links": "none"})[:-3])
    assert list(found(catalogue)) == ["catalog.json"]


def test_readers_of_the_last_good_version_go_on(catalogue: Catalogue) -> None:
    path = table(catalogue)
    old = next(catalogue.root.glob(f"{codes(catalogue)}/*-v1/codes-*.parquet"))
    truncate(old)
    assert len(open_codes(catalogue)) == 10
    [(file, problem)] = found(catalogue).items()
    assert file == old.relative_to(catalogue.root).as_posix()
    assert "this version is not current: `rshash catalog gc`" in problem
    assert len(pd.read_parquet(path)) == 10
    remove(catalogue, garbage(catalogue, keep=0))
    assert found(catalogue) == {}
    truncate(path)
    assert "not current" not in " ".join(found(catalogue).values())


def test_files_that_nothing_points_to_are_orphans_and_no_faults(catalogue: Catalogue) -> None:
    path = table(catalogue)
    left = [
        path.parent / ".staged-1.parquet",
        path.parent.parent / "cut-off-v1",
        catalogue.root / "codes-never-published",
        catalogue.root / ".catalog.json.0a.staged",
    ]
    left[0].touch()
    left[1].mkdir()
    (left[2] / "cut-off-v1").mkdir(parents=True)
    left[3].touch()
    assert found(catalogue) == {}
    assert set(orphans(catalogue)) == {
        left[0].relative_to(catalogue.root).as_posix(),
        left[1].relative_to(catalogue.root).as_posix(),
        "codes-never-published/cut-off-v1",
        ".catalog.json.0a.staged",
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stac_version": 3}, "is no STAC item"),
        ({"properties": {"rshash:bits": "many"}}, "says rshash:bits 'many'"),
        ({"properties": {"rshash:sensor": "landsat-c2-l2"}}, "says rshash:sensor"),
    ],
)
def test_a_model_s_item_that_was_edited_is_named(catalogue: Catalogue, change, says: str) -> None:
    [model] = catalogue.items("models")
    path = Path(str(model.get_self_href()))
    record = stac.read_json(path)
    properties = record["properties"] | change.get("properties", {})
    stac.write_json(path, record | change | {"properties": properties})
    [(file, problem)] = found(catalogue).items()
    assert catalogue.root / file == path and says in problem
    if "stac_version" in change:
        with pytest.raises(CatalogueError, match="is no STAC item"):
            catalogue.items("models")
