import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pystac
import pytest
from ingesting import leave_an_ingest_half_done
from published_world import SENSOR, index, make_model, publish_segment, random_codes, tiles
from stac_schemas import assert_catalogue_valid
from tiny_source import TinySource

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import (
    code_rows,
    collection_of,
    publish_code_tables,
    published_columns,
)
from data_catalog.errors import CatalogueError
from data_catalog.feature_cache import compute_features
from data_catalog.garbage import garbage, remove
from data_catalog.model_switch import switch_model
from data_catalog.models import publish_model
from data_catalog.observations import current_observations
from data_catalog.orphans import orphans
from data_catalog.planning import KEEP_DAYS
from data_catalog.query import open_codes

SEGMENTS = f"tiles-{SENSOR}"


def codes_of_night(catalogue: Catalogue, model, night: int, count: int = 6) -> None:
    observed = index(tiles(count), f"2024-06-{night:02}", f"S2A_{night}")
    publish_code_tables(catalogue, model, code_rows(observed, random_codes(count, seed=night)))


def collect(catalogue: Catalogue, **retention) -> list[str]:
    found = garbage(catalogue, **retention)
    remove(catalogue, found)
    assert_catalogue_valid(catalogue.root)
    return sorted(one.name.rpartition("/")[2] for one in found)


def publish_labels(catalogue: Catalogue, model_id: str) -> str:
    item = pystac.Item(f"{model_id}-labels", None, None, datetime(2024, 6, 1, tzinfo=UTC), {})
    catalogue.asset_folder(f"labels-{model_id}", item.id)
    item.add_link(pystac.Link("derived_from", f"../../models/{model_id}/{model_id}.json"))
    catalogue.publish(f"labels-{model_id}", item)
    return item.id


def age(catalogue: Catalogue, name: str, days: float = 2.0) -> None:
    path = catalogue.root / name
    long_ago = time.time() - days * 86400
    for one in (path, *path.rglob("*")):
        os.utime(one, (long_ago, long_ago))


def test_versions_beyond_the_retention_go(catalogue: Catalogue) -> None:
    publish_segment(catalogue, "seen", index(tiles(6)))
    model = make_model()
    publish_model(catalogue, model)
    for night in range(1, 6):
        codes_of_night(catalogue, model, night)
    collection_id = collection_of(model.model_id)
    ids = [f"{model.model_id}-UTM1920-32N-v{number}" for number in range(1, 6)]
    before = open_codes(catalogue).similar(tiles(1)[0].id)
    assert garbage(catalogue) == []
    assert garbage(catalogue, older_than_days=1) == garbage(catalogue, 4) == []
    assert [one.size > 1000 for one in garbage(catalogue, 2)] == [True, True]
    assert collect(catalogue, keep=2) == ids[:2]
    assert catalogue.versions(collection_id, ids[0]) == ids[2:]
    catalogue.roll_back(collection_id, ids[2])
    # Newer ones, which nothing has replaced.
    assert {one.why for one in garbage(catalogue, 0)} == {"it is not current"}
    assert collect(catalogue, older_than_days=0) == ids[3:]
    assert catalogue.item_ids(collection_id) == [ids[2]]
    codes_of_night(catalogue, model, 5)
    assert open_codes(catalogue).similar(tiles(1)[0].id).equals(before)


def test_a_version_that_is_gone_back_to_meanwhile_stays(catalogue: Catalogue) -> None:
    model = make_model()
    publish_model(catalogue, model)
    for night in (1, 2):
        codes_of_night(catalogue, model, night)
    found = garbage(catalogue, 0)
    collection_id, _, first = found[0].name.partition("/")
    catalogue.roll_back(collection_id, first)
    removed: list[object] = []
    remove(catalogue, found, removed.append)
    assert removed == [] and catalogue.item_ids(collection_id) == [first]


def test_a_version_that_is_removed_meanwhile_is_not_gone_back_to(catalogue: Catalogue) -> None:
    model = make_model()
    publish_model(catalogue, model)
    for night in (1, 2):
        codes_of_night(catalogue, model, night)
    collection_id = collection_of(model.model_id)
    first, second = catalogue.versions(collection_id, catalogue.item_ids(collection_id)[0])
    with ThreadPoolExecutor(1) as pool:
        with catalogue.store.lock():
            going_back = pool.submit(catalogue.roll_back, collection_id, first)
            time.sleep(0.5)
            catalogue.withdraw(collection_id, first)
        with pytest.raises(CatalogueError, match="is not published"):
            going_back.result()
    assert [item.id for item in catalogue.items(collection_id)] == [second]


def test_what_comes_into_use_meanwhile_stays(catalogue: Catalogue) -> None:
    publish_segment(catalogue, "old", index(tiles(4), "2024-06-01", "S2A_1"))
    publish_segment(catalogue, "new", index(tiles(4), "2024-06-02", "S2A_2"))
    found = garbage(catalogue, 0)
    assert [one.name for one in found] == [f"{SEGMENTS}/old"]
    first, second, third = (make_model(seed=seed) for seed in (1, 2, 3))
    publish_model(catalogue, first)
    remove(catalogue, found)
    assert catalogue.item_ids(SEGMENTS) == ["old", "new"]

    publish_model(catalogue, second)
    labels = publish_labels(catalogue, second.model_id)
    publish_model(catalogue, third)
    found = garbage(catalogue, 0)
    assert [one.name.rpartition("/")[2] for one in found] == [labels, second.model_id]
    codes_of_night(catalogue, second, 2, 4)
    remove(catalogue, found)
    assert catalogue.item_ids(f"labels-{second.model_id}") == [labels]
    assert second.model_id in catalogue.model_ids()


def test_what_is_in_use_stays(catalogue: Catalogue) -> None:
    publish_segment(catalogue, "trained-on", index(tiles(4), "2024-06-01", "S2A_1"))
    model = make_model()
    publish_model(catalogue, model)
    publish_segment(catalogue, "coded", index(tiles(4), "2024-06-02", "S2A_2"))
    codes_of_night(catalogue, model, 2, 4)
    publish_segment(catalogue, "superseded", index(tiles(4), "2024-06-03", "S2A_3"))
    publish_segment(catalogue, "partly", index(tiles(5), "2024-06-04", "S2A_4"))
    publish_segment(catalogue, "newest", index(tiles(4), "2024-06-05", "S2A_5"))
    nothing_seen = index(tiles(4), "2024-06-05", "S2A_5").assign(state="invalid", reason="cloud")
    publish_segment(catalogue, "clouds", nothing_seen)
    assert collect(catalogue, keep=1) == []
    assert collect(catalogue, keep=0) == ["superseded"]
    assert catalogue.item_ids(SEGMENTS) == ["trained-on", "coded", "partly", "newest", "clouds"]
    codes_of_night(catalogue, model, 5, 4)
    assert collect(catalogue, keep=0) == sorted(["coded", f"{model.model_id}-UTM1920-32N-v1"])


def test_models_without_codes_go_with_what_only_they_need(catalogue: Catalogue) -> None:
    publish_segment(catalogue, "first", index(tiles(4), "2024-06-01", "S2A_1"))
    unused, coded, latest = (make_model(seed=seed) for seed in (1, 2, 3))
    publish_model(catalogue, unused)
    publish_segment(catalogue, "second", index(tiles(4), "2024-06-02", "S2A_2"))
    for model in (coded, latest):
        publish_model(catalogue, model)
    codes_of_night(catalogue, coded, 2, 4)
    switch_model(catalogue, coded.model_id)
    labels = publish_labels(catalogue, unused.model_id)
    assert collect(catalogue, keep=0) == sorted([unused.model_id, labels])
    assert catalogue.model_ids() == [coded.model_id, latest.model_id]
    assert f"labels-{unused.model_id}" not in catalogue.collections()


def test_orphans_go_once_no_run_can_be_about_to_publish_them(catalogue: Catalogue) -> None:
    publish_segment(catalogue, "seen", index(tiles(6)))
    model = make_model()
    publish_model(catalogue, model)
    codes_of_night(catalogue, model, 1)
    for item_id in ("planned", "cut-off", "recent"):
        folder = catalogue.asset_folder(SEGMENTS, item_id)
        (folder / "index.parquet").write_bytes(b"1234")
    stac.write_json(catalogue.root / ".plans" / "planned" / "plan.json", {})
    [item] = catalogue.items(collection_of(model.model_id))
    stray = Path(str(item.get_self_href())).parent / ".staged-1.parquet"
    stray.touch()
    (catalogue.root / ".catalog.json.1.staged").touch()
    stac.write_json(catalogue.root / "codes-cut-off" / "collection.json", {"links": []})
    for name in orphans(catalogue):
        if not name.endswith("recent"):
            age(catalogue, name)
    assert len(orphans(catalogue)) == 6
    goes = [".catalog.json.1.staged", ".staged-1.parquet", "collection.json", "cut-off"]
    assert collect(catalogue) == goes
    assert [name.rpartition("/")[2] for name in orphans(catalogue)] == ["planned", "recent"]


def test_a_plan_that_no_run_came_back_to_goes_with_what_is_staged_for_it(
    catalogue: Catalogue, source: TinySource
) -> None:
    leave_an_ingest_half_done(catalogue, source)
    [segment_id] = catalogue.store.names(".plans")
    left = [f".plans/{segment_id}", f"{SEGMENTS}/{segment_id}"]
    for name in left:
        age(catalogue, name)
    assert collect(catalogue) == []
    for name in left:
        age(catalogue, name, days=KEEP_DAYS + 1)
    found = garbage(catalogue)
    assert [one.name for one in found] == left and all(one.size for one in found)
    leave_an_ingest_half_done(catalogue, source)
    remove(catalogue, found)
    assert catalogue.store.names(".plans") == [segment_id]
    for name in left:
        age(catalogue, name, days=KEEP_DAYS + 1)
    assert collect(catalogue) == [segment_id] * 2
    assert catalogue.store.names(".plans") == catalogue.store.names(SEGMENTS) == []


def test_garbage_is_looked_for_while_an_ingest_is_at_work(
    catalogue: Catalogue, source: TinySource
) -> None:
    leave_an_ingest_half_done(catalogue, source)
    [plan] = (catalogue.root / ".plans").iterdir()
    ended = threading.Event()

    def write_parts() -> None:
        while not ended.is_set():
            for number in range(50):
                (plan / "parts" / f".{number}").touch()
            for number in range(50):
                (plan / "parts" / f".{number}").replace(plan / "parts" / str(number))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_parts)
        try:
            assert not any(garbage(catalogue) for _ in range(100))
        finally:
            ended.set()
        writing.result()


def test_an_orphan_that_is_published_meanwhile_stays(catalogue: Catalogue) -> None:
    folder = catalogue.asset_folder(SEGMENTS, "late")
    (folder / "data.txt").write_text("pixels")
    age(catalogue, f"{SEGMENTS}/late")
    found = garbage(catalogue)
    assert [one.name for one in found] == [f"{SEGMENTS}/late"]
    item = pystac.Item("late", None, None, datetime(2024, 6, 1, tzinfo=UTC), {})
    item.add_asset("data", pystac.Asset("./data.txt"))
    catalogue.publish(SEGMENTS, item)
    remove(catalogue, found)
    assert catalogue.item_ids(SEGMENTS) == ["late"] and (folder / "data.txt").exists()


def test_each_orphan_is_looked_at_by_itself(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{SEGMENTS}/cut-off-{number}" for number in range(3)]
    for name in names:
        catalogue.asset_folder(*name.split("/"))
        age(catalogue, name)
    found = garbage(catalogue)
    lists = Mock(wraps=catalogue.store.names)
    monkeypatch.setattr(catalogue.store, "names", lists)
    remove(catalogue, found)
    assert not lists.called
    assert [one.name for one in found] == names and orphans(catalogue) == []


def test_codes_are_read_where_a_segment_is_replaced(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    publish_segment(catalogue, "first", index(tiles(4), "2024-06-01", "S2A_1"))
    publish_model(catalogue, model)
    codes_of_night(catalogue, model, 1, 4)
    publish_segment(catalogue, "second", index(tiles(8)[4:], "2024-06-02", "S2A_2"))
    reads = Mock(wraps=published_columns)
    monkeypatch.setattr("data_catalog.garbage.published_columns", reads)
    assert garbage(catalogue, 0) == [] and not reads.called
    publish_segment(catalogue, "third", index(tiles(8), "2024-06-03", "S2A_3"))
    assert [one.name for one in garbage(catalogue, 0)] == [f"{SEGMENTS}/second"]
    assert reads.call_count == 1


def test_features_of_a_segment_go_with_it(catalogue: Catalogue) -> None:
    extractor, cache = make_model().extractor, catalogue.root / ".cache" / "features"
    for number, segment_id in enumerate(("old", "new"), 1):
        publish_segment(catalogue, segment_id, index(tiles(2), f"2024-06-0{number}"))
        compute_features(catalogue, SENSOR, current_observations(catalogue, SENSOR), extractor)
    found = garbage(catalogue, keep=0)
    cached = [f".cache/features/{extractor.id}/{segment_id}" for segment_id in ("old", "new")]
    assert [one.name for one in found] == [f"{SEGMENTS}/old", cached[0]]
    assert garbage(catalogue) == []
    remove(catalogue, found[:1])
    found = garbage(catalogue)
    assert [one.name for one in found] == cached[:1] and found[0].size
    remove(catalogue, found)
    assert [path.name for path in cache.glob("*/*")] == ["new"]


@pytest.mark.parametrize(("days", "goes"), [(9, True), (11, False)])
def test_old_versions_go_by_their_age(catalogue: Catalogue, days: int, goes: bool) -> None:
    model = make_model()
    publish_model(catalogue, model)
    for night in (1, 2):
        codes_of_night(catalogue, model, night)
    [record] = catalogue.root.glob("codes-*/*-v1/*-v1.json")
    content = stac.read_json(record)
    content["properties"]["created"] = stac.timestamp(datetime.now(UTC) - timedelta(days=10))
    stac.write_json(record, content)
    assert [one.name.endswith("-v1") for one in garbage(catalogue, None, days)] == [True] * goes
