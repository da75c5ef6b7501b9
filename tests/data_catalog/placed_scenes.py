"""Scenes on grids of their own around a tile, and where exactly the tile's pixels lie on them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from data_catalog.assets import AssetWindow, read_assets
from data_catalog.errors import ReadError
from data_catalog.grid import Tile, Zone, tiles_at
from data_catalog.sensors import SceneBand


def tile_at(lon: float, lat: float) -> Tile:
    [tile] = tiles_at([lon], [lat], 1920)
    return tile


class Case(NamedTuple):
    """A tile and the grid of a scene around it; ``shift`` from multiples of 60 m."""

    tile: Tile
    epsg: int
    resolution: int
    shift: int = 0


CASES = {
    "neighbour north": Case(tile_at(6.01, 44.9), 32631, 10),
    "neighbour south": Case(tile_at(150.02, -33.5), 32755, 10),
    "neighbour near the pole": Case(tile_at(12.02, 83.5), 32632, 10),
    "west of the antimeridian": Case(tile_at(179.995, 52.0), 32601, 10),
    "east of the antimeridian": Case(tile_at(-179.995, -17.0), 32760, 10),
    "neighbour across the equator": Case(tile_at(6.002, 0.005), 32731, 10),
    "Landsat north": Case(tile_at(9.3, 48.0), 32632, 30, 15),
    "Landsat south, northern code": Case(tile_at(151.0, -33.5), 32656, 30, 15),
    "Landsat of the neighbour": Case(tile_at(6.01, -44.9), 32631, 30, 15),
}


class Placed(NamedTuple):
    """Where a case's pixels are: tile centres in pixels of the scene, from its corner."""

    west: float
    north: float
    shape: tuple[int, int]
    columns: np.ndarray
    rows: np.ndarray


def placed(case: Case, margin: int = 20) -> Placed:
    west, south, east, north = case.tile.bounds
    step = case.resolution
    x, y = np.meshgrid(
        np.arange(west + step / 2, east, step), np.arange(north - step / 2, south, -step)
    )
    there = Transformer.from_crs(case.tile.zone.epsg, case.epsg, always_xy=True)
    x, y = there.transform(x, y)
    left = np.floor(x.min() / 60) * 60 - margin * step + case.shift
    top = np.ceil(y.max() / 60) * 60 + margin * step + case.shift
    shape = int((top - y.min()) // step) + margin, int((x.max() - left) // step) + margin
    return Placed(left, top, shape, (x - left) / step, (top - y) / step)


def waves(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A smooth field at places in pixels."""
    return 3000 + 1000 * np.sin(2 * np.pi * columns / 40) * np.cos(2 * np.pi * rows / 52)


def field(kind: str, shape: tuple[int, int]) -> np.ndarray:
    if kind == "noisy":
        return np.random.default_rng(1).integers(1, 12_000, shape).astype(np.float32)
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    return waves(columns, rows).astype(np.float32)


def write(
    path: Path,
    values: np.ndarray,
    epsg: int,
    west: float,
    north: float,
    size: float,
    nodata: float | None = 0,
) -> str:
    height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=1,
        dtype=values.dtype,
        crs=f"EPSG:{epsg}",
        transform=from_origin(west, north, size, size),
        nodata=nodata,
        tiled=True,
        blockxsize=128,
        blockysize=128,
        compress="deflate",
    ) as file:
        file.write(values, 1)
    return str(path)


def read(
    href: str,
    zone: Zone,
    bounds: tuple[int, int, int, int],
    size: int,
    how: str,
    nodata: float | None = 0.0,
) -> np.ndarray:
    band = SceneBand("band", href, 1.0, 0.0, nodata)
    [found] = read_assets([AssetWindow("scene", band, "generic", zone, bounds, size, how)])
    assert not isinstance(found, ReadError), found
    return found


def warped(href: str, tile: Tile, size: int, how: str) -> np.ndarray:
    """The tile's pixels of the whole file, as GDAL places them exactly."""
    side = tile.size // size
    with (
        rasterio.open(href) as file,
        WarpedVRT(
            file,
            crs=f"EPSG:{tile.zone.epsg}",
            transform=from_origin(tile.bounds[0], tile.bounds[3], size, size),
            width=side,
            height=side,
            resampling=Resampling[how],
            src_nodata=file.nodata,
            nodata=file.nodata,
            dtype="float32",
            tolerance=1e-5,
            # Else GDAL widens the kernel by how far a turned window's surroundings reach.
            XSCALE=1,
            YSCALE=1,
        ) as view,
    ):
        return view.read(1)


def kernel(values: np.ndarray, at: Placed, how: str) -> np.ndarray:
    """Bilinear, or Keys' cubic of -0.5, at exact places."""
    column, row = np.floor(at.columns - 0.5).astype(int), np.floor(at.rows - 0.5).astype(int)
    right, down = at.columns - 0.5 - column, at.rows - 0.5 - row
    total = np.zeros(column.shape)
    for i in range(-1, 3):
        for j in range(-1, 3):
            weight = _weight(right - i, how) * _weight(down - j, how)
            total += weight * values[row + j, column + i]
    return total


def _weight(distance: np.ndarray, how: str) -> np.ndarray:
    d = np.abs(distance)
    if how == "bilinear":
        return np.maximum(1 - d, 0)
    outer = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, outer, 0))
