from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import zarr
from ingesting import MOMENT, S2, TILE, add_granule, index_of, plan, run
from tiny_source import SCL_CLEAR, TinySource, noise

from data_catalog.catalogue import Catalogue
from data_catalog.demo_world import World, build_world, world_area
from data_catalog.errors import CatalogueError, GridError, SensorError, SourceError
from data_catalog.grid import Tile, Zone
from data_catalog.http_server import serve_folder
from data_catalog.observations import current_observations, read_tiles
from data_catalog.planning import IngestPlan, plan_ingest
from data_catalog.tile_cover import tiles_covering

pytestmark = pytest.mark.usefixtures("impatient")


def test_from_search_to_pixels(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    planned = plan(catalogue, source)
    assert planned.summary() == {
        "scenes": 1,
        "blocks": 1,
        "tiles": 2,
        "bytes": int(1.6 * (896 * 704 + 704 * 608) + 0.1 * 704 * 608),
        "stored_bytes": int(0.8 * 2 * 2 * 2 * 192**2),
        "duration": 1,
    }
    segment_id = run(catalogue, planned)

    observed = current_observations(catalogue, S2)
    east = Tile(TILE.zone, TILE.column + 1, TILE.row)
    assert observed["tile_id"].tolist() == [TILE.id, east.id]
    assert set(observed["segment_id"]) == {segment_id}
    assert observed["datetime"].tolist() == [MOMENT, MOMENT]
    assert [list(s) for s in observed["source_scenes"]] == [["first"], ["first"]]
    pixels = read_tiles(catalogue, S2, observed, ["swir16", "red"])
    assert (pixels.shape, pixels.dtype) == ((2, 2, 192, 192), np.float32)
    red = (noise((312, 504), 1).astype(int) - 1000).clip(1)[60:252, 252:444]
    np.testing.assert_allclose(pixels[1, 1], red * 1e-4, rtol=1e-6)
    again = read_tiles(catalogue, S2, observed.iloc[::-1], ["red"])
    np.testing.assert_array_equal(again[:, 0], pixels[::-1, 1])


def test_the_layout_of_a_segment(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    segment_id = run(catalogue, plan(catalogue, source))
    folder = catalogue.root / f"tiles-{S2}" / segment_id
    array = zarr.open_group(folder / "pixels.zarr", mode="r", use_consolidated=False)["reflectance"]
    assert array.metadata.zarr_format == 3
    assert (array.shape, array.chunks) == ((64, 2, 192, 192), (1, 2, 192, 192))
    assert (array.shards, array.dtype) == ((64, 2, 192, 192), np.uint16)
    assert array.metadata.dimension_names == ("tile", "band", "y", "x")
    described = dict(array.attrs)
    assert described["bands"] == ["red", "swir16"]
    assert (described["scale_factor"], described["_FillValue"]) == (1e-4, 0)
    assert described["resolution"] == 10

    index = index_of(catalogue, segment_id)
    assert index["row"].tolist() == [TILE.block.position(TILE), TILE.block.position(TILE) + 1]
    assert shapely.area(index.geometry[0].symmetric_difference(TILE.footprint)) < 1e-9
    metadata = pq.read_schema(folder / "index.parquet").metadata
    assert b"Contains modified Copernicus Sentinel data [2024]" in metadata[b"attribution"]
    item = catalogue.item(f"tiles-{S2}", segment_id)
    assert [k.href for k in item.links if k.rel == "derived_from"]
    assert sorted(p.name for p in folder.iterdir()) == [
        f"{segment_id}.json",
        "checksums.sha256",
        "index.parquet",
        "pixels.zarr",
        "scenes.parquet",
    ]
    assert not list((catalogue.root / ".plans").iterdir())


def test_tiles_on_both_sides_of_the_antimeridian(catalogue: Catalogue, source: TinySource) -> None:
    # Two granules as deep into their zones as the lattice brings them over 180°.
    for scene_id, zone, lon in (("east", Zone(60, "S"), 179.97), ("west", Zone(1, "S"), -179.97)):
        easting, northing = zone.project(lon, -16.9)
        corner = int(easting) // 60 * 60 - 3000, (int(northing) // 60) * 60 + 40 + 3000
        bands = {"B04": (noise((600, 600), 4), 10)}
        scl = np.full((300, 300), SCL_CLEAR, np.uint8)
        source.sentinel_2(scene_id, zone.epsg, *corner, bands, scl)
    planned = plan(catalogue, source, area="179.975,-16.905,-179.975,-16.895", bands=["red"])
    run(catalogue, planned)
    observed = current_observations(catalogue, S2)
    valid = {tile_id.split("_")[0] for tile_id in observed["tile_id"]}
    assert valid == {"UTM1920-60S", "UTM1920-01S"}
    wanted = {tile.id for tile in tiles_covering(shapely.box(179.975, -16.905, 180.025, -16.895))}
    assert set(observed["tile_id"]) == wanted


def test_bad_input_is_refused_before_anything_is_read(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    where = str(source.write())
    area = "11.5,48.1,11.6,48.2"
    with pytest.raises(SourceError, match="has no Sentinel-2 Level-2A scenes"):
        plan_ingest(catalogue, where, S2, area, "2019")
    with pytest.raises(SourceError, match="has no Sentinel-2 Level-2A scenes"):
        plan_ingest(catalogue, where, S2, "0,0,0.1,0.1", "2024")
    with pytest.raises(SensorError, match="did you mean"):
        plan_ingest(catalogue, where, "sentinel-2", area, "2024")
    with pytest.raises(SensorError, match="no band 'violet'"):
        plan_ingest(catalogue, where, S2, area, "2024", bands=["violet"])
    with pytest.raises(GridError, match="multiple of 60"):
        plan_ingest(catalogue, where, S2, area, "2024", tile_size=1000)
    with pytest.raises(CatalogueError, match="holds no plan"):
        IngestPlan.load(catalogue.root)
    assert catalogue.collections() == []


def test_a_band_that_was_not_ingested_is_named(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    run(catalogue, plan(catalogue, source, bands=["red"]))
    observed = current_observations(catalogue, S2)
    with pytest.raises(CatalogueError, match=r"holds the bands red, not swir16"):
        read_tiles(catalogue, S2, observed, ["red", "swir16"])
    # It is planned anew, because what is there does not hold it.
    assert not plan(catalogue, source, bands=["red", "swir16"]).is_empty


def test_tile_sizes_live_side_by_side(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    run(catalogue, plan(catalogue, source))
    point = shapely.Point(TILE.centre)
    run(catalogue, plan(catalogue, source, area=point, tile_size=960))
    assert len(current_observations(catalogue, S2)) == 3
    small = current_observations(catalogue, S2, tile_size=960)
    assert read_tiles(catalogue, S2, small, ["red"]).shape == (1, 1, 96, 96)
    with pytest.raises(CatalogueError, match="960 m and 1920 m"):
        read_tiles(catalogue, S2, current_observations(catalogue, S2), ["red"])
    assert current_observations(catalogue, S2, tile_size=3840).empty


@pytest.mark.parametrize("zone", [Zone(32, "N"), Zone(56, "S")], ids=str)
def test_two_nights_of_the_demonstration_world(
    catalogue: Catalogue, tmp_path: Path, zone: Zone
) -> None:
    world = World(zone=zone, tiles=4)
    folder = tmp_path / "world"
    with serve_folder(build_world(folder, 1, world).parent) as address:
        counts = {}
        for night in (1, 2):
            if night == 2:
                build_world(folder, 2, world)
            for sensor in (S2, "landsat-c2-l2"):
                planned = plan_ingest(
                    catalogue, f"{address}/catalog.json", sensor, world_area(world), "2024"
                )
                counts[night, sensor] = planned.summary()["tiles"]
                run(catalogue, planned)
    assert counts[1, S2] == counts[1, "landsat-c2-l2"] == 16
    assert 0 < counts[2, S2] <= 16
    fine, coarse = (
        current_observations(catalogue, S2),
        current_observations(catalogue, "landsat-c2-l2"),
    )
    fine, coarse = (frame[frame["clear_fraction"] > 0.95] for frame in (fine, coarse))
    both = sorted(set(fine["tile_id"]) & set(coarse["tile_id"]))
    red = [
        read_tiles(catalogue, sensor, frame.set_index("tile_id").loc[both].reset_index(), ["red"])
        for sensor, frame in ((S2, fine), ("landsat-c2-l2", coarse))
    ]
    blurred = red[0][:, 0].reshape(len(both), 64, 3, 64, 3).mean((2, 4))

    def agreement(shift_y: int, shift_x: int) -> float:
        there = red[1][:, 0, 1 + shift_y : 63 + shift_y, 1 + shift_x : 63 + shift_x]
        pairs = zip(blurred[:, 1:-1, 1:-1], there, strict=True)
        return float(np.nanmedian([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))

    # One ground seen by two instruments: they agree, and best where they are said to lie.
    shifted = [agreement(*shift) for shift in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    assert agreement(0, 0) > 0.85
    assert agreement(0, 0) > max(shifted) + 0.02
    assert max(shifted) - min(shifted) < 0.1
