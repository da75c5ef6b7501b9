import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import pytest
import shapely

from data_catalog.scenes import newest_processing, pass_of, scene_area, scene_epsg

MOMENT = datetime(2024, 6, 18, 10, 16, tzinfo=UTC)


def item(scene_id: str, geometry: Any = None, **properties: Any) -> pystac.Item:
    known = {key.replace("__", ":"): value for key, value in properties.items()}
    return pystac.Item(scene_id, geometry, [0, 0, 1, 1], MOMENT, known)


def sentinel_2(scene_id: str, baseline: str, generated: str, **more: Any) -> pystac.Item:
    known = {
        "s2__datatake_id": f"GS2B_20240618T101559_038043_N{baseline}",
        "s2__mgrs_tile": "32UPU",
        "s2__datastrip_id": f"S2B_OPER_MSI_L2A_DS_2BPS_{generated}_S20240618T101600_N{baseline}",
        "s2__processing_baseline": baseline,
        "s2__generation_time": generated,
    }
    return item(scene_id, None, **{**known, **more})


def test_the_newest_processing_of_a_sentinel_2_granule_wins() -> None:
    old = sentinel_2("old", "05.10", "2024-06-18T13:00:00Z")
    again = sentinel_2("again", "05.10", "2024-06-19T13:00:00Z")
    new = sentinel_2("new", "05.11", "2024-06-18T12:00:00Z")
    for order in ([old, again, new], [new, again, old]):
        assert [scene.id for scene in newest_processing(order)] == ["new"]
    assert [scene.id for scene in newest_processing([old, again])] == ["again"]


def test_granules_and_strips_of_a_datatake_are_kept() -> None:
    strip = "S2B_OPER_MSI_L2A_DS_2BPS_20240618T130000_S20240618T102500_N05.10"
    scenes = [
        sentinel_2("a", "05.10", "2024-06-18T13:00:00Z"),
        sentinel_2("b", "05.10", "2024-06-18T13:00:00Z", s2__mgrs_tile="32UQU"),
        sentinel_2("c", "05.10", "2024-06-18T13:00:00Z", s2__datastrip_id=strip),
    ]
    assert len(newest_processing(scenes)) == 3
    assert len({pass_of(scene) for scene in scenes}) == 1


def test_other_baselines_are_not_mosaicked() -> None:
    old = sentinel_2("old", "05.10", "2024-06-18T13:00:00Z")
    new = sentinel_2("new", "05.11", "2024-06-18T13:00:00Z")
    assert pass_of(old) != pass_of(new)


def test_landsat_rows_of_a_path_are_one_pass_and_the_newest_product_wins() -> None:
    known = {"platform": "landsat-9", "landsat__wrs_path": "193"}
    first = item("LC09_T2", landsat__wrs_row="26", created="2024-06-20", **known)
    better = item("LC09_T1", landsat__wrs_row="26", created="2024-07-02", **known)
    below = item("below", landsat__wrs_row="27", created="2024-06-20", **known)
    kept = newest_processing([better, first, below])
    assert [scene.id for scene in kept] == ["LC09_T1", "below"]
    assert len({pass_of(scene) for scene in kept}) == 1


def test_real_items_are_all_different_acquisitions(shared: Path) -> None:
    paths = (shared / "data" / "stac-items").glob("*/*l2*/[LS]*.json")
    items = [pystac.Item.from_dict(json.loads(p.read_text()), migrate=False) for p in paths]
    by_catalogue: dict[str, list[pystac.Item]] = {}
    for scene in items:
        by_catalogue.setdefault(str(scene.collection_id), []).append(scene)
    for scenes in by_catalogue.values():
        assert len(newest_processing(scenes)) == len(scenes)
    assert all(scene_epsg(scene) for scene in items)


def radar(scene_id: str, slice_number: str = "1", **more: Any) -> pystac.Item:
    known = {"platform": "SENTINEL-1A", "s1__datatake_id": "425458", "sat__absolute_orbit": 53498}
    return item(scene_id, s1__slice_number=slice_number, **{**known, **more})


def test_slices_of_a_radar_datatake_are_one_pass() -> None:
    slices = [radar("first"), radar("second", "2")]
    assert newest_processing(slices) == slices
    assert {pass_of(scene) for scene in slices} == {"sentinel-1a_datatake_425458"}
    others = [radar("other", s1__datatake_id="425459"), radar("twin", platform="sentinel-1c")]
    assert len({pass_of(scene) for scene in [*slices, *others]}) == 3


def test_a_slice_that_was_processed_again_replaces_the_first() -> None:
    first = radar("first", s1__processing_datetime="2024-06-18T07:00:00Z")
    again = radar("again", s1__processing_datetime="2024-06-19T07:00:00Z")
    assert [scene.id for scene in newest_processing([again, first])] == ["again"]


def test_without_a_datatake_an_orbit_is_one_pass_in_each_direction() -> None:
    known = {"platform": "SENTINEL-1A", "sat__absolute_orbit": 53498}
    down = [item(name, sat__orbit_state="descending", **known) for name in ("a", "b")]
    up = item("c", sat__orbit_state="ascending", **known)
    assert {pass_of(scene) for scene in down} == {"sentinel-1a_orbit_53498_descending"}
    assert pass_of(up) == "sentinel-1a_orbit_53498_ascending"


@pytest.mark.parametrize(
    "written",
    [
        shapely.box(179.5, -17, 180.5, -16),
        shapely.MultiPolygon(
            [shapely.box(179.5, -17, 180, -16), shapely.box(-180, -17, -179.5, -16)]
        ),
        shapely.Polygon([(179.5, -17), (-179.5, -17), (-179.5, -16), (179.5, -16)]),
    ],
    ids=["past 180", "cut", "wrapped"],
)
def test_a_scene_over_the_antimeridian_is_one_piece(written: Any) -> None:
    area = scene_area(item("scene", shapely.geometry.mapping(written)))
    assert area.bounds == pytest.approx((179.5, -17, 180.5, -16))
    assert area.area == pytest.approx(1.0)


def test_the_projection_is_read_in_both_spellings() -> None:
    assert scene_epsg(item("a", proj__epsg=32632)) == 32632
    assert scene_epsg(item("a", proj__code="EPSG:32756")) == 32756
    assert scene_epsg(item("a")) is None
