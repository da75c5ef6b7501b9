import numpy as np
import pytest
import shapely
from ingesting import INSIDE, S2, TILE, add_granule, add_half, index_of, plan, run, two_tiles
from tiny_source import TinySource, noise

from data_catalog.catalogue import Catalogue
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.observations import current_observations, read_tiles
from data_catalog.planning import plan_ingest

pytestmark = pytest.mark.usefixtures("impatient")


def test_nothing_is_planned_twice(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    add_granule(source, "clouds", days=1, clear=False)
    run(catalogue, plan(catalogue, source))
    again = plan(catalogue, source)
    assert again.is_empty and again.block_ids == [] and again.summary()["tiles"] == 0
    # A period or a place without any scene is nothing new either, once the area is known.
    where = str(source.write())
    later = plan_ingest(catalogue, where, S2, two_tiles(), "2025", bands=["red"])
    assert later.is_empty


def test_only_new_scenes_are_read_and_the_newest_is_current(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    first = run(catalogue, plan(catalogue, source))
    add_granule(source, "second", days=5, seed=7)
    planned = plan(catalogue, source, area=shapely.Point(TILE.centre))
    assert list(planned.scenes) == ["second"]
    second = run(catalogue, planned)
    observed = current_observations(catalogue, S2)
    assert observed["segment_id"].tolist() == [second, first]
    pixels = read_tiles(catalogue, S2, observed, ["red"])
    expected = [(noise((312, 504), seed).astype(int) - 1000).clip(1) for seed in (7, 1)]
    np.testing.assert_allclose(pixels[0, 0], expected[0][60:252, 60:252] * 1e-4, rtol=1e-6)
    np.testing.assert_allclose(pixels[1, 0], expected[1][60:252, 252:444] * 1e-4, rtol=1e-6)


def test_an_older_scene_that_comes_later_is_not_current(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "newer", days=5)
    newer = run(catalogue, plan(catalogue, source))
    add_granule(source, "older")
    run(catalogue, plan(catalogue, source))
    assert set(current_observations(catalogue, S2)["segment_id"]) == {newer}


def test_a_reprocessed_scene_replaces_its_predecessor(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "N0510", baseline="05.10")
    run(catalogue, plan(catalogue, source))
    add_granule(source, "N0511", seed=7, baseline="05.11")
    planned = plan(catalogue, source)
    assert list(planned.scenes) == ["N0511"]
    assert set(planned.scenes) == {"N0511"}
    newest = run(catalogue, planned)
    assert set(current_observations(catalogue, S2)["segment_id"]) == {newest}


def test_what_could_not_be_read_is_read_the_next_time(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    path = source.folder / S2 / "first" / "B11.tif"
    away = path.rename(path.with_suffix(".away"))
    planned = plan(catalogue, source)
    folder = planned.save(catalogue)
    report = ingest_block(folder, planned.block_ids[0])
    assert (report.valid, report.invalid) == (0, 2)
    (reason, count), *more = report.reasons.items()
    assert reason.startswith("unreadable: first, asset B11: ") and count == 2 and not more
    assert list(report.failures) == ["first"]
    first = publish_segment(catalogue, planned)
    index = index_of(catalogue, first)
    assert index["state"].tolist() == ["invalid", "invalid"]
    assert index["reason"].str.contains("first, asset B11").all()
    assert current_observations(catalogue, S2).empty

    away.rename(path)
    again = plan(catalogue, source)
    assert again.segment_id != first
    run(catalogue, again)
    assert len(current_observations(catalogue, S2)) == 2


def test_a_late_scene_is_put_together_with_what_its_pass_saw_before(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_half(source, "west", east=False, minutes=1)
    run(catalogue, plan(catalogue, source, area=INSIDE, minimum_clear=0.4))
    assert current_observations(catalogue, S2)["clear_fraction"].tolist() == [0.5]
    add_half(source, "east", east=True)
    run(catalogue, plan(catalogue, source, area=INSIDE, minimum_clear=0.4))
    observed = current_observations(catalogue, S2)
    assert observed["clear_fraction"].tolist() == [1.0]
    assert set(observed["source_scenes"][0]) == {"east", "west"}
    assert plan(catalogue, source, area=INSIDE, minimum_clear=0.4).is_empty


def test_a_scene_that_failed_is_put_together_with_its_pass_the_next_time(
    catalogue: Catalogue, source: TinySource
) -> None:
    for name in ("west", "east"):
        add_half(source, name, east=name == "east")
    path = source.folder / S2 / "west" / "B04.tif"
    away = path.rename(path.with_suffix(".away"))
    run(catalogue, plan(catalogue, source, area=INSIDE))
    assert current_observations(catalogue, S2).empty
    away.rename(path)
    run(catalogue, plan(catalogue, source, area=INSIDE))
    assert current_observations(catalogue, S2)["clear_fraction"].tolist() == [1.0]


def test_a_tile_that_no_scene_sees_is_not_planned_twice(
    catalogue: Catalogue, source: TinySource
) -> None:
    west, _, _, north = TILE.bounds
    bands = {"B04": (np.zeros((312, 504), np.uint16), 10)}
    scl = np.zeros((156, 252), np.uint8)
    source.sentinel_2("blank", TILE.zone.epsg, west - 600, north + 600, bands, scl)
    options = {"bands": ["red"], "minimum_clear": 0.0}
    run(catalogue, plan(catalogue, source, **options))
    assert plan(catalogue, source, **options).is_empty


def test_a_lower_threshold_gives_cloudy_tiles_a_second_chance(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "clouds", clear=False)
    report_of = plan(catalogue, source)
    ingest_block(report_of.save(catalogue), report_of.block_ids[0])
    publish_segment(catalogue, report_of)
    assert plan(catalogue, source).is_empty
    assert not plan(catalogue, source, minimum_clear=0.0).is_empty
