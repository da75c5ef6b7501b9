"""Reading parts of scenes' assets onto a pixel grid, many at once."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import reproject, transform
from rasterio.windows import Window

from data_catalog.errors import ReadError
from data_catalog.grid import Tile, Zone
from data_catalog.rasters import DamagedError, Raster, Rasters
from data_catalog.redaction import redacted
from data_catalog.sensors import SceneBand

Bounds = tuple[int, int, int, int]

STRIP_PIXELS = 512
"""Columns resampled at once: GDAL may take the projection for straight over as many.

Over 5 km that is right to 0.005 of a pixel of 10 m. rasterio passes no smaller tolerance on.
"""

AHEAD_PIXELS = 24 * 1024**2
"""Read ahead of what is worked on: two blocks of Sentinel-2's default bands."""

_KERNEL_PIXELS = 3
_SAME_PIXEL = 1e-4
_COARSENING = 1.5
_POINTS_ALONG_EDGE = 9


@dataclass(frozen=True)
class AssetWindow:
    """A part of an asset on a pixel grid of a zone.

    Attributes:
        scene_id: For messages.
        band: The asset; its nodata is the number for "not observed".
        profile: Of the source catalogue: says how to sign.
        zone: Gives the projection.
        bounds: West, south, east, north, metres; multiples of the resolution apart.
        resolution: Metres per pixel.
        resampling: How numbers are brought onto the grid where they do not lie on it: ``nearest``,
            ``bilinear``, ``cubic``. Where they lie much closer than its pixels, all but ``nearest``
            average.
    """

    scene_id: str
    band: SceneBand
    profile: str
    zone: Zone
    bounds: Bounds
    resolution: int
    resampling: str = "nearest"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        west, south, east, north = self.bounds
        return (north - south) // self.resolution, (east - west) // self.resolution

    @property
    def transform(self) -> Affine:
        """From column and row of a pixel's corner to coordinates."""
        return from_origin(self.bounds[0], self.bounds[3], self.resolution, self.resolution)


@dataclass(frozen=True)
class _Patch:
    """Pixels of an asset on its own grid; ``copied`` says whether that is the grid asked for."""

    pixels: NDArray[Any]
    crs: CRS
    transform: Affine
    copied: bool


def read_assets(windows: Sequence[AssetWindow]) -> Iterator[NDArray[Any] | ReadError]:
    """Reads parts of assets, all at once.

    Where an asset lies on the same pixel grid its numbers are copied, else they are resampled, as
    float32. What lies beyond its edges is nodata, or NaN where it has no nodata.

    Args:
        windows: What to read.

    Yields:
        For each window its numbers ``(y, x)`` with the northernmost row first, or, if they cannot
        be read after all retries, the error that names scene, asset and cause.
    """
    waiting, under_way, ahead = deque(windows), deque[Any](), 0
    for window in windows:
        while waiting and (not under_way or ahead < AHEAD_PIXELS):
            ahead += waiting[0].shape[0] * waiting[0].shape[1]
            under_way.append(_RUNNER.submit(_patch(waiting.popleft())))
        yield _result(under_way.popleft(), window)
        ahead -= window.shape[0] * window.shape[1]


def _result(patch: Any, window: AssetWindow) -> NDArray[Any] | ReadError:
    try:
        return _on_grid(patch.result(), window)
    except Exception as error:  # Whatever a library raises, one bad scene must not end the run.
        told = redacted(str(error)) or type(error).__name__
        return ReadError(f"{window.scene_id}, asset {window.band.key}: {told}")


def rectangles(tiles: Iterable[Tile]) -> list[list[Tile]]:
    """Tiles of one zone and size, grouped into full rectangles of adjacent ones."""
    runs: dict[tuple[int, int], list[list[Tile]]] = {}
    for run in _runs(sorted(tiles, key=lambda tile: (tile.row, tile.column))):
        groups = runs.setdefault((run[0].column, run[-1].column), [])
        if groups and groups[-1][-1].row == run[0].row - 1:
            groups[-1] += run
        else:
            groups.append(run)
    return [group for groups in runs.values() for group in groups]


def union_of(bounds: list[Bounds]) -> Bounds:
    """The smallest rectangle around rectangles."""
    west, south, east, north = zip(*bounds, strict=True)
    return min(west), min(south), max(east), max(north)


def window_of(inner: Bounds, outer: Bounds, resolution: int) -> tuple[slice, slice]:
    """Rows and columns of a square among the pixels of a rectangle around it."""
    left, top = (inner[0] - outer[0]) // resolution, (outer[3] - inner[3]) // resolution
    side = (inner[2] - inner[0]) // resolution
    return slice(top, top + side), slice(left, left + side)


class _Runner:
    """A thread with an event loop that fetches; pixels are worked on by those who asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = -1

    def submit(self, job: Coroutine[Any, Any, _Patch | None]) -> Any:
        return asyncio.run_coroutine_threadsafe(job, self._running_loop())

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._process != os.getpid():  # threads do not survive a fork
                self._process, self.rasters = os.getpid(), Rasters()
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="fetch assets", daemon=True
                ).start()
                atexit.register(self._close)
            return self._loop

    def _close(self) -> None:
        if self._process == os.getpid():
            asyncio.run_coroutine_threadsafe(self.rasters.close(), self._loop).result(5.0)


_RUNNER = _Runner()


async def _patch(window: AssetWindow) -> _Patch | None:
    """The pixels that a window needs; None where it lies beyond the asset's edges."""
    rasters, href = _RUNNER.rasters, window.band.href
    try:
        return await _read(await rasters.open(href, window.profile), window)
    except DamagedError:
        rasters.forget(href, window.profile)
        return await _read(await rasters.open(href, window.profile), window)


async def _read(raster: Raster, window: AssetWindow) -> _Patch | None:
    offset = _offset_on_same_grid(raster, window)
    if offset is None:
        place = _window_around(raster, window)
    else:
        place = Window(*offset, window.shape[1], window.shape[0])
    west, north = max(place.col_off, 0), max(place.row_off, 0)
    east = min(place.col_off + place.width, raster.width)
    south = min(place.row_off + place.height, raster.height)
    if west >= east or north >= south:
        return None
    pixels = await raster.read(Window(west, north, east - west, south - north))
    pixels = _with_nodata_of(window.band, pixels, raster.nodata)
    corner = raster.transform @ Affine.translation(west, north)
    return _Patch(pixels, raster.crs, corner, offset is not None)


def _with_nodata_of(
    band: SceneBand, pixels: NDArray[Any], own_nodata: float | None
) -> NDArray[Any]:
    """The pixels with what the file itself calls nodata as the scene calls it."""
    if own_nodata is None or own_nodata == band.nodata or np.isnan(own_nodata):
        return pixels
    unobserved = pixels == own_nodata
    if not unobserved.any():
        return pixels
    return np.where(unobserved, np.nan if band.nodata is None else band.nodata, pixels).astype(
        np.float32
    )


def _on_grid(patch: _Patch | None, window: AssetWindow) -> NDArray[Any]:
    if patch is not None and patch.copied and patch.pixels.shape == window.shape:
        return patch.pixels
    nodata = window.band.nodata
    pixels = np.full(window.shape, np.nan if nodata is None else nodata, np.float32)
    if patch is None:
        return pixels
    if patch.copied:
        left, top = ~window.transform @ (patch.transform.c, patch.transform.f)
        height, width = patch.pixels.shape
        pixels[round(top) : round(top) + height, round(left) : round(left) + width] = patch.pixels
        return pixels
    for first in range(0, window.shape[1], STRIP_PIXELS):
        strip = pixels[:, first : first + STRIP_PIXELS].copy()
        _resample(patch, window, first, strip)
        pixels[:, first : first + STRIP_PIXELS] = strip
    return pixels


def _resample(patch: _Patch, window: AssetWindow, first: int, strip: NDArray[np.float32]) -> None:
    """Resamples columns of a window, from the first on, into an array of nodata."""
    nodata = window.band.nodata
    across, down = _steps(patch, window)
    reproject(
        patch.pixels.astype(np.float32, copy=False),
        strip,
        src_transform=patch.transform,
        src_crs=patch.crs,
        src_nodata=nodata,
        dst_transform=window.transform @ Affine.translation(first, 0),
        dst_crs=_crs(window.zone.epsg),
        dst_nodata=np.nan if nodata is None else nodata,
        resampling=_resampling(max(across, down), window),
        # GDAL's guess counts what surrounds a turned window, and blurs as if pixels were finer.
        XSCALE=1.0 / across,
        YSCALE=1.0 / down,
    )


def _offset_on_same_grid(raster: Raster, window: AssetWindow) -> tuple[int, int] | None:
    ours, theirs = window.transform, raster.transform
    if raster.crs != _crs(window.zone.epsg) or not np.allclose(
        (theirs.a, theirs.b, theirs.d, theirs.e), (ours.a, 0.0, 0.0, ours.e)
    ):
        return None
    column, row = ~theirs @ (ours.c, ours.f)
    nearest = round(column), round(row)
    apart = abs(column - nearest[0]), abs(row - nearest[1])
    return nearest if max(apart) < _SAME_PIXEL else None


def _window_around(raster: Raster, window: AssetWindow) -> Window:
    west, south, east, north = window.bounds
    along = np.linspace(0.0, 1.0, _POINTS_ALONG_EDGE)
    xs, ys = west + along * (east - west), south + along * (north - south)
    sides = [(xs, 0 * xs + south), (xs, 0 * xs + north), (0 * ys + west, ys), (0 * ys + east, ys)]
    x, y = (np.concatenate(part) for part in zip(*sides, strict=True))
    x, y = map(np.asarray, transform(_crs(window.zone.epsg), raster.crs, x, y))
    if raster.crs.is_geographic:
        middle = (raster.transform @ (raster.width / 2, raster.height / 2))[0]
        x = middle + (x - middle + 180.0) % 360.0 - 180.0
    columns, rows = ~raster.transform @ (x, y)
    height, width = window.shape
    left, right = _reach(columns, width)
    top, bottom = _reach(rows, height)
    return Window(left, top, right - left, bottom - top)


def _reach(places: NDArray[np.float64], pixels: int) -> tuple[int, int]:
    """First and last of an asset's rows or columns that resampling to so many may ask for."""
    margin = int(np.ceil(_KERNEL_PIXELS * max(1.0, np.ptp(places) / pixels))) + 1
    return int(np.floor(places.min())) - margin, int(np.ceil(places.max())) + margin


def _steps(patch: _Patch, window: AssetWindow) -> tuple[float, float]:
    """Pixels of the asset to one of ours, along our rows and columns; at least 1."""
    west, south, east, north = window.bounds
    x, y = (west + east) / 2, (south + north) / 2
    xs, ys = [x, x + window.resolution, x], [y, y, y - window.resolution]
    there = np.array(transform(_crs(window.zone.epsg), patch.crs, xs, ys))
    moved = there[:, 1:] - there[:, :1]
    if patch.crs.is_geographic:
        moved[0] = (moved[0] + 180.0) % 360.0 - 180.0
    grid = patch.transform
    columns, rows = np.linalg.solve([[grid.a, grid.b], [grid.d, grid.e]], moved)
    # Rounded, lest the same pixel differs with the window that it is read in.
    across, down = np.maximum(np.hypot(columns, rows).round(1), 1.0).tolist()
    return across, down


def _resampling(step: float, window: AssetWindow) -> Resampling:
    asked = Resampling[window.resampling]
    return Resampling.average if step > _COARSENING and asked != Resampling.nearest else asked


@lru_cache(maxsize=256)
def _crs(epsg: int) -> CRS:
    return CRS.from_epsg(epsg)


def _runs(tiles: list[Tile]) -> list[list[Tile]]:
    runs: list[list[Tile]] = []
    for tile in tiles:
        last = runs[-1][-1] if runs else None
        if last and (last.row, last.column + 1) == (tile.row, tile.column):
            runs[-1].append(tile)
        else:
            runs.append([tile])
    return runs
