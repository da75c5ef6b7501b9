import json
from collections import namedtuple
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import stac_geoparquet.arrow
from ingesting import MOMENT, S2, TILE, add_granule, add_half, index_of, plan, run, two_tiles
from pyarrow import parquet
from tiny_source import SCL_CLEAR, TinySource, noise

from data_catalog import costs
from data_catalog.areas import parse_area
from data_catalog.catalogue import Catalogue
from data_catalog.costs import check_room, fetched_bytes
from data_catalog.errors import CatalogueError, SourceError
from data_catalog.grid import Tile
from data_catalog.planning import IngestPlan, is_finished, plan_ingest
from data_catalog.sensors import get_sensor


def test_a_saved_plan_is_the_plan(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    add_half(source, "half", east=False)
    planned = plan(catalogue, source)
    folder = planned.save(catalogue)
    loaded = IngestPlan.load(folder)
    assert loaded == planned
    # Both tiles' lists of scenes are written once each.
    assert sorted(json.loads((folder / "plan.json").read_text())["groups"]) == [
        ["first"],
        ["first", "half"],
    ]


def test_a_scene_that_sees_the_rest_of_a_point_s_tile_is_found(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_half(source, "west", east=False)
    add_half(source, "east", east=True)
    west, south, _, _ = TILE.bounds
    lon, lat = TILE.zone.unproject(west + 100, south + 100)
    planned = plan(catalogue, source, area=shapely.Point(lon, lat))
    assert planned.blocks == {TILE.block.id: {TILE.id: ["east", "west"]}}


def test_coordinates_in_a_file_become_tiles(
    catalogue: Catalogue, source: TinySource, tmp_path: Path
) -> None:
    add_granule(source, "first")
    path = tmp_path / "places.csv"
    path.write_text("lon,lat\n{},{}\n".format(*TILE.centre))
    run(catalogue, planned := plan(catalogue, source, area=str(path)))
    assert index_of(catalogue, planned.segment_id)["tile_id"].tolist() == [TILE.id]


def test_the_scenes_of_a_run_are_published_as_stac_geoparquet(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first", clear=False)
    add_granule(source, "second", days=1)
    segment_id = run(catalogue, plan(catalogue, source))
    asset = catalogue.item(f"tiles-{S2}", segment_id).assets["scenes"]
    assert asset.roles == ["metadata"] and asset.extra_fields["file:size"] > 0
    path = asset.get_absolute_href()
    frame = gpd.read_parquet(path)
    assert sorted(frame["id"]) == ["first", "second"]
    assert frame.crs.equals("OGC:CRS84") or frame.crs.equals(4326)
    scenes = list(stac_geoparquet.arrow.stac_table_to_items(parquet.read_table(path)))
    for scene in sorted(scenes, key=lambda scene: str(scene["id"])):
        original = next(item for item in source.items if item.id == scene["id"])
        assert scene["properties"]["s2:datatake_id"] == original.properties["s2:datatake_id"]
        assert [(k["rel"], Path(k["href"]).name) for k in scene["links"]] == [
            ("self", f"{original.id}.json")
        ]
        assert set(scene["assets"]) == set(original.assets)


def test_bytes_grow_with_tiles_bands_and_scenes() -> None:
    sensor = get_sensor(S2)
    one = {"block": {TILE.id: ["a"]}}
    two_scenes = {"block": {TILE.id: ["a", "b"]}}
    red = fetched_bytes(sensor, ["red"], one)
    assert red == int(1.6 * 704**2 + 0.1 * 608**2)
    assert fetched_bytes(sensor, ["red", "nir"], one) > 1.5 * red
    assert fetched_bytes(sensor, ["red"], two_scenes) - red == int(0.1 * 608**2)
    assert fetched_bytes(sensor, ["red"], {}) == 0


def test_a_disk_without_room_is_refused_with_both_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(costs.shutil, "disk_usage", lambda _: usage(10**9, 0, 5_000_000))
    check_room(tmp_path / "new" / "catalogue", 5_000_000)
    with pytest.raises(CatalogueError, match=r"about 7\.2 MB, but only 5\.0 MB are free"):
        check_room(tmp_path / "new" / "catalogue", 7_200_000)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_is_found_other_periods_and_sensors_are_told(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    red = {"red": (noise((100, 100), 3), 30), "qa_pixel": (noise((100, 100), 3), 30)}
    elsewhere = Tile(TILE.zone, TILE.column + 20, TILE.row)
    corner = elsewhere.bounds[0] - 600, elsewhere.bounds[3] + 600
    epsg = TILE.zone.epsg
    source.scene("l9", "landsat-c2-l2", epsg, *corner, red, MOMENT, platform="landsat-9")
    where = str(source.write())
    with pytest.raises(SourceError, match=r"There are some before that \(2024-06-18\)\.$"):
        plan_ingest(catalogue, where, S2, two_tiles(), "2025")
    with pytest.raises(SourceError, match=r"\. Of other sensors it has landsat-c2-l2\.$"):
        plan_ingest(catalogue, where, S2, shapely.Point(elsewhere.centre), "2024")
    west, south, east, north = source.items[0].bbox
    within = rf"All that it has lie within {west:g},{south:g},{east:g},{north:g}\.$"
    with pytest.raises(SourceError, match=within):
        plan_ingest(catalogue, where, S2, "20,40,20.1,40.1", "2024")


def test_what_fails_while_others_are_looked_for_hides_nothing(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    where = str(source.write())
    broken = source.folder / "landsat-c2-l2" / "collection.json"
    broken.parent.mkdir()
    broken.write_text("{")
    catalog = json.loads(Path(where).read_text())
    catalog["links"].append({"rel": "child", "href": "./landsat-c2-l2/collection.json"})
    Path(where).write_text(json.dumps(catalog))
    with pytest.raises(SourceError, match=r"has no Sentinel-2 .* scenes over the area"):
        plan_ingest(catalogue, where, S2, two_tiles(), "2025")


def test_a_plan_that_another_run_published_is_finished(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    first, second = plan(catalogue, source), plan(catalogue, source)
    assert first.segment_id == second.segment_id
    folder = first.save(catalogue)
    assert not is_finished(folder)
    run(catalogue, first)
    assert is_finished(folder)
    # The other run had planned before, and saves its plan only now.
    assert second.save(catalogue) == folder
    assert is_finished(folder)


def test_planning_and_refusing_leave_no_catalogue(source: TinySource, tmp_path: Path) -> None:
    add_granule(source, "first")
    catalogue = Catalogue.open_or_create(tmp_path / "none")
    assert plan(catalogue, source).summary()["tiles"] == 2
    with pytest.raises(SourceError):
        plan(catalogue, source, area="0,0,0.1,0.1")
    assert not (tmp_path / "none").exists()


def test_many_tiles_share_their_lists_of_scenes(catalogue: Catalogue, source: TinySource) -> None:
    scl = np.full((60, 60), SCL_CLEAR, np.uint8)
    west, _, _, north = TILE.bounds
    bands = {"B04": (noise((300, 300), 2), 200)}
    for day in range(3):
        moment = MOMENT.replace(day=day + 1)
        source.sentinel_2(f"scene-{day}", TILE.zone.epsg, west, north, bands, scl, moment)
    lon, lat = TILE.centre
    area = parse_area(f"{lon},{lat - 0.4},{lon + 0.5},{lat}")
    planned = plan(catalogue, source, area=area, bands=["red"])
    lists = [scenes for tiles in planned.blocks.values() for scenes in tiles.values()]
    assert len(lists) > 300
    assert len({id(scenes) for scenes in lists}) < 5
    assert max(map(len, lists)) == 3
