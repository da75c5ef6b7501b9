"""Segments as people see them who know nothing of rshash: with xarray and pyproj alone."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray
from ingesting import MOMENT, S2, TILE, add_granule, plan, run
from pyproj import CRS
from tiny_source import SCL_CLEAR, TinySource, noise

from data_catalog.catalogue import Catalogue
from data_catalog.grid import Tile, Zone, parse_tile_id


@pytest.fixture
def segment(catalogue: Catalogue, source: TinySource) -> Path:
    add_granule(source, "first")
    segment_id = run(catalogue, plan(catalogue, source))
    return catalogue.root / f"tiles-{S2}" / segment_id / "pixels.zarr"


def test_a_tile_is_found_by_its_id_with_reflectance_time_and_place(segment: Path) -> None:
    tile = xarray.open_zarr(segment, consolidated=False).sel(tile=TILE.id)
    red = (noise((312, 504), 1).astype(int) - 1000).clip(1)[60:252, 60:252]
    np.testing.assert_allclose(tile.reflectance.sel(band="red"), red * 1e-4, rtol=1e-5)
    seen = tile.time.values.astype("datetime64[s]").astype(datetime)
    assert seen == MOMENT.replace(tzinfo=None, microsecond=0)
    west, south, east, north = TILE.bounds
    assert (tile.easting.values[0], tile.easting.values[-1]) == (west + 5, east - 5)
    assert (tile.northing.values[0], tile.northing.values[-1]) == (north - 5, south + 5)
    assert tile.reflectance.attrs["units"] == "1"
    assert CRS.from_cf(tile.spatial_ref.attrs) == CRS.from_epsg(int(tile.epsg))


def test_every_row_tells_its_tile_and_whether_it_was_seen(segment: Path) -> None:
    seen = xarray.open_zarr(segment, consolidated=False)
    tiles = [parse_tile_id(tile_id) for tile_id in seen.tile.values]
    assert [TILE.block.position(tile) for tile in tiles] == list(range(64))
    assert {tile.block for tile in tiles} == {TILE.block}
    assert seen.tile.values[seen.valid.values == 1].tolist() == [
        TILE.id,
        Tile(TILE.zone, TILE.column + 1, TILE.row).id,
    ]
    unseen = seen.isel(tile=int(np.flatnonzero(seen.valid == 0)[0]))
    assert np.isnat(unseen.time.values)
    assert np.isnan(unseen.reflectance).all()


def test_the_page_shows_how_to_read_a_tile(segment: Path, monkeypatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ingest.md").read_text()
    shown = page.partition("## Reading segments")[2].partition("\n## ")[0]
    names: dict[str, Any] = {}
    monkeypatch.chdir(segment.parent)
    for code in re.findall(r"```python\n(.*?)```", shown, re.DOTALL):
        code = code.replace("catalogue/tiles-sentinel-2-l2a/SEGMENT/pixels.zarr", str(segment))
        exec(code.replace("UTM1920-32N_0262_2799", TILE.id), names)
    red = (noise((312, 504), 1).astype(int) - 1000).clip(1)[60:252, 60:252]
    np.testing.assert_allclose(names["red"], red * 1e-4, rtol=1e-5)
    np.testing.assert_array_equal(names["numbers"][0], red)
    with rasterio.open("tile.tif") as file:
        assert (file.bounds, file.crs) == (TILE.bounds, f"EPSG:{TILE.zone.epsg}")
        np.testing.assert_allclose(file.read(1), red * 1e-4, rtol=1e-5)


def test_a_segment_of_two_zones_tells_the_zone_of_every_tile(
    catalogue: Catalogue, source: TinySource
) -> None:
    for scene_id, zone, lon in (("east", Zone(60, "S"), 179.97), ("west", Zone(1, "S"), -179.97)):
        easting, northing = zone.project(lon, -16.9)
        corner = int(easting) // 60 * 60 - 3000, int(northing) // 60 * 60 + 40 + 3000
        bands = {"B04": (noise((600, 600), 4), 10)}
        scl = np.full((300, 300), SCL_CLEAR, np.uint8)
        source.sentinel_2(scene_id, zone.epsg, *corner, bands, scl)
    area = "179.975,-16.905,-179.975,-16.895"
    segment_id = run(catalogue, plan(catalogue, source, area=area, bands=["red"]))
    path = catalogue.root / f"tiles-{S2}" / segment_id / "pixels.zarr"
    seen = xarray.open_zarr(path, consolidated=False)
    zones = [parse_tile_id(tile_id).zone.epsg for tile_id in seen.tile.values]
    assert seen.epsg.values.tolist() == zones
    assert set(zones) == {32760, 32701}
    assert "spatial_ref" not in seen.variables
