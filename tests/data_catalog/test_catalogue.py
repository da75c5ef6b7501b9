import hashlib
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pystac
import pytest
from published_world import records
from shapely.geometry import box, mapping
from stac_schemas import assert_catalogue_valid

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.errors import CatalogueError

TILES = "tiles-sentinel-2-l2a"
FORK = multiprocessing.get_context("fork")

pytestmark = pytest.mark.filterwarnings("ignore::pystac.DeprecatedWarning")


def stage(catalogue, item_id, text="some pixels"):
    folder = catalogue.asset_folder(TILES, item_id)
    (folder / "data.txt").write_text(text)
    item = pystac.Item(item_id, None, None, datetime(2024, 6, 1, tzinfo=UTC), {})
    item.add_asset("data", pystac.Asset("./data.txt"))
    return item


def publish(catalogue, item_id, supersedes=None):
    catalogue.publish(TILES, stage(catalogue, item_id), supersedes=supersedes)


@pytest.fixture
def catalogue(tmp_path):
    return Catalogue.create(tmp_path / "catalogue")


def test_writers_of_one_record_do_not_disturb_each_other(tmp_path):
    def write(number):
        for _ in range(20):
            stac.write_json(tmp_path / "record.json", {"numbers": [number] * 500})
            assert len(stac.read_json(tmp_path / "record.json")["numbers"]) == 500

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_an_empty_catalogue_is_valid_and_lists_nothing(catalogue):
    assert assert_catalogue_valid(catalogue.root) == 1
    assert catalogue.contents() == [] and catalogue.collections() == []
    assert catalogue.item_ids("models") == [] and catalogue.latest_model_id() is None


def test_opening_something_else_says_what_to_do(tmp_path):
    with pytest.raises(CatalogueError, match=r"holds no catalogue.*RSHASH_CATALOG"):
        Catalogue.open(tmp_path)
    (tmp_path / "catalog.json").write_text('{"type": "Catalog", "id": "somebody-else"}')
    with pytest.raises(CatalogueError, match="not one that rshash publishes to"):
        Catalogue.open(tmp_path)
    with pytest.raises(CatalogueError, match="not an empty folder"):
        Catalogue.create(tmp_path)
    (tmp_path / "catalog.json").write_text("{")
    with pytest.raises(CatalogueError, match="not valid JSON"):
        Catalogue.open_or_create(tmp_path)


def test_what_is_published_is_listed_with_sizes_and_checksums(catalogue):
    publish(catalogue, "first")
    [row] = catalogue.contents()
    assert (row["collection"], row["item"]) == (TILES, "first")
    assert Path(row["file"]).read_text() == "some pixels"
    assert row["size"] == len("some pixels") and row["version"] == "1"
    asset = Catalogue.open(catalogue.root).item(TILES, "first").assets["data"]
    assert Path(asset.get_absolute_href()).read_text() == "some pixels"
    assert asset.extra_fields["file:checksum"] == stac.file_checksum(
        catalogue.root / TILES / "first" / "data.txt"
    )
    assert asset.extra_fields["file:checksum"].startswith("1220")


def test_published_items_are_immutable(catalogue):
    publish(catalogue, "first")
    with pytest.raises(CatalogueError, match="never changed"):
        catalogue.asset_folder(TILES, "first")
    with pytest.raises(CatalogueError, match="never changed"):
        catalogue.publish(TILES, pystac.Item("first", None, None, datetime.now(UTC), {}))


def test_a_missing_asset_is_refused(catalogue):
    item = stage(catalogue, "first")
    item.add_asset("more", pystac.Asset("./more.txt"))
    with pytest.raises(CatalogueError, match="'more' of item 'first' is missing"):
        catalogue.publish(TILES, item)


def test_unknown_items_and_models_are_named_with_what_there_is(catalogue):
    with pytest.raises(CatalogueError, match="train one with"):
        catalogue.model_id()
    publish(catalogue, "first")
    with pytest.raises(CatalogueError, match=r"'second' is not published.*there is first"):
        catalogue.item(TILES, "second")
    with pytest.raises(CatalogueError, match=f"'codes-x' is not in.*{TILES}"):
        catalogue.collection("codes-x")


def test_a_refusal_by_verify_leaves_everything_as_it_was(catalogue):
    publish(catalogue, "first")
    before = records(catalogue.root)

    def refuse(folder):
        assert (folder / "data.txt").read_text() == "some pixels"
        raise RuntimeError("damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        catalogue.publish(TILES, stage(catalogue, "second"), verify=refuse)
    after = records(catalogue.root)
    assert {path: after[path] for path in before} == before
    assert catalogue.item_ids(TILES) == ["first"]
    publish(catalogue, "second")
    assert catalogue.item_ids(TILES) == ["first", "second"]


@pytest.mark.filterwarnings("error")
def test_a_new_version_takes_the_place_of_the_old_one(catalogue):
    publish(catalogue, "zone-v1")
    publish(catalogue, "zone-v2", supersedes="zone-v1")
    publish(catalogue, "zone-v3", supersedes="zone-v2")
    assert catalogue.item_ids(TILES) == ["zone-v3"]
    old = catalogue.item(TILES, "zone-v2")
    assert old.properties["deprecated"] is True
    assert Path(old.assets["data"].get_absolute_href()).exists()
    links = {link.rel: link.href for link in old.links if link.rel.endswith("-version")}
    assert [Path(links[rel]).stem for rel in ("predecessor-version", "successor-version")] == [
        "zone-v1",
        "zone-v3",
    ]
    assert assert_catalogue_valid(catalogue.root) == 5


def test_what_is_superseded_while_it_is_listed_can_still_be_read(catalogue, monkeypatch):
    publish(catalogue, "zone-v1")
    listed = catalogue.item_ids(TILES)
    monkeypatch.setattr(Catalogue, "_deprecate", lambda *_, **__: None)  # a reader is in between
    publish(catalogue, "zone-v2", supersedes="zone-v1")
    monkeypatch.setattr(catalogue, "item_ids", lambda _: listed)
    assert [item.id for item in catalogue.items(TILES)] == ["zone-v1"]


def test_two_runs_cannot_both_follow_the_same_version(catalogue):
    publish(catalogue, "zone-v1")
    publish(catalogue, "zone-v2", supersedes="zone-v1")
    with pytest.raises(CatalogueError, match=r"no longer current.*Run again"):
        publish(catalogue, "zone-v3", supersedes="zone-v1")
    assert catalogue.item_ids(TILES) == ["zone-v2"]


def in_processes(function, *calls):
    """Runs a function in processes at the same time, one for each call, and returns exit codes."""
    processes = [FORK.Process(target=run_and_leave, args=(function, *call)) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def run_and_leave(function, *arguments):
    function(*arguments)
    # Not by the exit hooks of what other tests imported: Prefect's fail without its threads, which
    # a fork does not have.
    os._exit(0)


def publish_and_be_killed(catalogue, item_id, supersedes, writes):
    real = stac.write_json

    def write(path, content):
        nonlocal writes
        if writes == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        writes -= 1
        real(path, content)

    stac.write_json = write
    publish(catalogue, item_id, supersedes)


@pytest.mark.parametrize("writes", range(5))
@pytest.mark.parametrize("supersedes", [None, "zone-v1"])
def test_a_killed_process_leaves_a_readable_catalogue(catalogue, writes, supersedes):
    if supersedes:
        publish(catalogue, "zone-v1")
    in_all, until_switched = (4, 3) if supersedes else (4, 4)
    [code] = in_processes(publish_and_be_killed, (catalogue, "zone-v2", supersedes, writes))
    assert code == (0 if writes >= in_all else -signal.SIGKILL)

    assert assert_catalogue_valid(catalogue.root) >= 1
    switched = writes >= until_switched
    before = [supersedes] if supersedes else []
    assert catalogue.item_ids(TILES) == (["zone-v2"] if switched else before)
    assert all(row["size"] for row in catalogue.contents())

    if not switched:
        publish(catalogue, "zone-v2", supersedes)
    publish(catalogue, "zone-v3", supersedes="zone-v2")
    assert catalogue.item_ids(TILES) == ["zone-v3"]
    for old in ["zone-v2", *before]:
        assert catalogue.item(TILES, old).properties["deprecated"] is True
    assert_catalogue_valid(catalogue.root)


def publish_five(catalogue, name):
    for i in range(5):
        publish(catalogue, f"{name}-{i}")


def test_publishing_from_several_processes_loses_nothing(catalogue):
    assert in_processes(publish_five, (catalogue, "a"), (catalogue, "b")) == [0, 0]
    assert sorted(catalogue.item_ids(TILES)) == [f"{n}-{i}" for n in "ab" for i in range(5)]
    assert stac.read_json(catalogue.root / "catalog.json")["links"][1:] == [
        stac.link("child", f"./{TILES}/collection.json")
    ]


def linked(catalogue, item_id):
    links = catalogue.item(TILES, item_id).links
    return {link.rel[:-8]: Path(link.href).stem for link in links if link.rel.endswith("-version")}


def test_every_version_leads_to_the_latest(catalogue):
    publish(catalogue, "zone-v1")
    publish(catalogue, "zone-v2", supersedes="zone-v1")
    publish(catalogue, "other-v1")
    publish(catalogue, "zone-v3", supersedes="zone-v2")
    assert catalogue.versions(TILES, "zone-v9") == ["zone-v1", "zone-v2", "zone-v3"]
    assert linked(catalogue, "zone-v1") == {"successor": "zone-v2", "latest": "zone-v3"}
    assert linked(catalogue, "zone-v2") == {
        "predecessor": "zone-v1",
        "successor": "zone-v3",
        "latest": "zone-v3",
    }
    assert linked(catalogue, "zone-v3") == {"predecessor": "zone-v2"}
    assert linked(catalogue, "other-v1") == {}


def test_going_back_to_a_version_loses_none(catalogue):
    publish(catalogue, "zone-v1")
    publish(catalogue, "zone-v2", supersedes="zone-v1")
    publish(catalogue, "zone-v3", supersedes="zone-v2")
    publish(catalogue, "other-v1")
    assert catalogue.roll_back(TILES, "zone-v1") == "zone-v3"
    assert catalogue.item_ids(TILES) == ["zone-v1", "other-v1"]
    assert "deprecated" not in catalogue.item(TILES, "zone-v1").properties
    assert linked(catalogue, "zone-v1") == {}
    assert linked(catalogue, "zone-v3") == {"predecessor": "zone-v2", "latest": "zone-v1"}
    assert_catalogue_valid(catalogue.root)

    publish(catalogue, "zone-v4", supersedes="zone-v1")
    assert catalogue.versions(TILES, "zone-v4") == [f"zone-v{i}" for i in range(1, 5)]
    assert linked(catalogue, "zone-v1") == {"successor": "zone-v4", "latest": "zone-v4"}
    assert linked(catalogue, "zone-v3") == {"predecessor": "zone-v2", "latest": "zone-v4"}
    for item_id in ("zone-v1", "zone-v2", "zone-v3"):
        assert catalogue.item(TILES, item_id).properties["deprecated"] is True
    assert catalogue.roll_back(TILES, "zone-v3") == "zone-v4"
    assert catalogue.item_ids(TILES) == ["other-v1", "zone-v3"]
    assert_catalogue_valid(catalogue.root)
    with pytest.raises(CatalogueError, match="current already"):
        catalogue.roll_back(TILES, "zone-v3")
    with pytest.raises(CatalogueError, match="not published"):
        catalogue.roll_back(TILES, "zone-v9")


def publish_seen(catalogue, item_id, day, west, supersedes=None):
    item = stage(catalogue, item_id)
    item.bbox = [west, 50.0, west + 1.0, 51.0]
    item.geometry = mapping(box(*item.bbox))
    item.datetime = datetime(2024, 6, day, tzinfo=UTC)
    catalogue.publish(TILES, item, supersedes=supersedes)


def days_and_box(catalogue):
    extent = catalogue.collection(TILES).extent
    [days], [bbox] = extent.temporal.intervals, extent.spatial.bboxes
    return [moment.day for moment in days], bbox


def test_the_extent_is_that_of_the_versions_gone_back_to(catalogue):
    publish_seen(catalogue, "other-v1", day=2, west=8.0)
    publish_seen(catalogue, "zone-v1", day=3, west=10.0)
    publish_seen(catalogue, "zone-v2", day=9, west=14.0, supersedes="zone-v1")
    assert days_and_box(catalogue) == ([2, 9], [8.0, 50.0, 15.0, 51.0])
    catalogue.roll_back(TILES, "zone-v1")
    assert days_and_box(catalogue) == ([2, 3], [8.0, 50.0, 11.0, 51.0])
    catalogue.roll_back(TILES, "zone-v2")
    assert days_and_box(catalogue) == ([2, 9], [8.0, 50.0, 15.0, 51.0])
    assert_catalogue_valid(catalogue.root)


def test_a_damaged_record_keeps_no_other_from_being_gone_back_to(catalogue):
    publish_seen(catalogue, "other-v1", day=2, west=8.0)
    publish_seen(catalogue, "zone-v1", day=3, west=10.0)
    publish_seen(catalogue, "zone-v2", day=9, west=14.0, supersedes="zone-v1")
    (catalogue.root / TILES / "other-v1" / "other-v1.json").write_text("{")
    catalogue.roll_back(TILES, "zone-v1")
    assert catalogue.item_ids(TILES) == ["other-v1", "zone-v1"]
    assert days_and_box(catalogue) == ([2, 9], [8.0, 50.0, 15.0, 51.0])


def roll_back_and_be_killed(catalogue, writes):
    real = stac.write_json

    def write(path, content):
        nonlocal writes
        if writes == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        writes -= 1
        real(path, content)

    stac.write_json = write
    catalogue.roll_back(TILES, "zone-v1")


@pytest.mark.parametrize("writes", range(4))
def test_a_killed_going_back_can_be_repeated(catalogue, writes):
    publish(catalogue, "zone-v1")
    publish(catalogue, "zone-v2", supersedes="zone-v1")
    assert in_processes(roll_back_and_be_killed, (catalogue, writes)) == [-signal.SIGKILL]
    assert catalogue.item_ids(TILES) == (["zone-v1"] if writes > 1 else ["zone-v2"])
    assert catalogue.versions(TILES, "zone-v1") == ["zone-v1", "zone-v2"]
    assert_catalogue_valid(catalogue.root)
    if writes < 2:
        catalogue.roll_back(TILES, "zone-v1")
        assert linked(catalogue, "zone-v2") == {"predecessor": "zone-v1", "latest": "zone-v1"}


def test_a_folders_files_have_checksums(catalogue):
    folder = catalogue.asset_folder(TILES, "first")
    (folder / "pixels.zarr" / "c").mkdir(parents=True)
    (folder / "pixels.zarr" / "c" / "0").write_bytes(b"shard")
    item = pystac.Item("first", None, None, datetime(2024, 6, 1, tzinfo=UTC), {})
    item.add_asset("pixels", pystac.Asset("./pixels.zarr"))
    catalogue.publish(TILES, item)
    checksums = catalogue.item(TILES, "first").assets["checksums"]
    assert Path(checksums.get_absolute_href()).read_text() == (
        f"{hashlib.sha256(b'shard').hexdigest()}  pixels.zarr/c/0\n"
    )
    assert checksums.extra_fields["file:checksum"].startswith("1220")


@pytest.mark.parametrize("content", ["[1]", "null", '"text"', "{", ""])
def test_a_record_that_is_no_json_object_is_refused_by_name(catalogue, content):
    (catalogue.root / "catalog.json").write_text(content)
    with pytest.raises(CatalogueError, match=r"catalog\.json .*restore it"):
        Catalogue.open(catalogue.root)
