"""Windows of remote rasters: tiled TIFFs by their own byte ranges, all else through GDAL.

A window of a cloud-optimised GeoTIFF is the ranges of the blocks that hold it. Asking for just
those, many at once and none twice, costs a tenth of the processor time that it takes to open the
file with GDAL for every window (benchmarks/ingest.py).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import aiohttp
import numpy as np
import rasterio
from affine import Affine
from async_tiff import TIFF, ImageFileDirectory
from async_tiff.enums import Compression, PlanarConfiguration, SampleFormat
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from data_catalog.byte_ranges import CONNECTIONS, TIMEOUT, RangeReader, is_remote
from data_catalog.errors import ReadError, SourceError
from data_catalog.polite import turn
from data_catalog.profiles import sign

HEADER_BYTES = 32 * 1024
"""Read when a file is opened: the header of a Sentinel-2 band is half as long."""

OPEN_FILES = 1024
"""Files whose headers are remembered; they hold no connection."""

CACHE_BYTES = 512 * 1024**2
"""Decoded blocks that are remembered: those at a window's edge are wanted by its neighbour."""

_Place = tuple[int, int]
_Pixels = NDArray[Any]

_USER_DEFINED = 32767
_PIXEL_IS_POINT = 2
_TIFF_SIGNATURES = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}

# What async-tiff decodes to the numbers that GDAL does; of others it is wrong without a word.
_COMPRESSIONS = {
    Compression.Uncompressed,
    Compression.LZW,
    Compression.Deflate,
    Compression.OldDeflate,
    Compression.ZSTD,
}
_KINDS = {SampleFormat.Uint: "u", SampleFormat.Int: "i", SampleFormat.Float: "f"}
_DTYPES = {"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"}

GDAL_SETTINGS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    # HTTP/2 where there is TLS: asking for it in plain HTTP makes servers answer with a warning.
    "GDAL_HTTP_VERSION": "2TLS",
    "GDAL_INGESTED_BYTES_AT_OPEN": HEADER_BYTES,
    "GDAL_HTTP_CONNECTTIMEOUT": 15,
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
}


class DamagedError(ReadError):
    """What came cannot be decoded; asked for anew, it may come whole."""


class Raster(Protocol):
    """The first band of an opened file.

    Attributes:
        crs: Its projection.
        transform: From column and row of a pixel's corner to coordinates.
        width: Columns.
        height: Rows.
        nodata: The file's own number for "not observed"; None if it states none.
    """

    crs: CRS
    transform: Affine
    width: int
    height: int
    nodata: float | None

    async def read(self, window: Window) -> _Pixels:
        """The numbers ``(y, x)`` of a window that lies within the file."""


class Rasters:
    """Opens rasters and reads windows of them; belongs to one event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._files: OrderedDict[tuple[str, str], asyncio.Future[Raster]] = OrderedDict()
        self._blocks = _BlockCache(CACHE_BYTES)

    async def open(self, href: str, profile: str) -> Raster:
        """The raster at an unsigned address; a file that was opened before is not opened again.

        Raises:
            ReadError: It cannot be opened.
        """
        key = href, profile
        if key not in self._files:
            self._files[key] = asyncio.ensure_future(self._open(href, profile))
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(key)
        try:
            return await asyncio.shield(self._files[key])
        except Exception:
            self._files.pop(key, None)
            raise

    def forget(self, href: str, profile: str) -> None:
        """Forgets what is remembered of a file, so that it is read anew."""
        self._files.pop((href, profile), None)
        self._blocks.forget(href)

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()

    async def _open(self, href: str, profile: str) -> Raster:
        if not is_remote(href) and _is_for_gdal(href):
            return await _with_gdal(href, profile)
        if self._session is None and is_remote(href):
            connector = aiohttp.TCPConnector(limit=CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=TIMEOUT)
        reader = RangeReader(href, profile, self._session if is_remote(href) else None)
        head = await reader.read_head(HEADER_BYTES)
        if head[:4] not in _TIFF_SIGNATURES:
            return await _with_gdal(href, profile)
        try:
            tiff = await TIFF.open("", store=reader, prefetch=len(head))
            return TiledTiff(href, tiff, self._blocks)
        except (_UnsuitedError, CRSError):
            return await _with_gdal(href, profile)
        except Exception as error:
            raise DamagedError(_told(error)) from None


async def _with_gdal(href: str, profile: str) -> GdalRaster:
    async with turn(href, profile):
        return await asyncio.to_thread(GdalRaster, href, profile)


def _is_for_gdal(href: str) -> bool:
    return href.startswith("/vsi") or "://" in href.removeprefix("file://")


class _UnsuitedError(Exception):
    """A TIFF that is not tiled, or tells its place or its numbers in a way of its own."""


class TiledTiff:
    """A raster of which each block is a byte range."""

    def __init__(self, href: str, tiff: TIFF, blocks: _BlockCache) -> None:
        ifd = tiff.ifds[0]
        self._href, self._tiff, self._ifd, self._blocks = href, tiff, ifd, blocks
        if ifd.tile_width is None or ifd.tile_height is None:
            raise _UnsuitedError
        self._side, self._dtype = (ifd.tile_width, ifd.tile_height), _dtype(ifd)
        self.crs, self.transform = _projection(ifd), _transform(ifd)
        self.width, self.height = ifd.image_width, ifd.image_height
        self.nodata = _nodata(ifd)

    async def read(self, window: Window) -> _Pixels:
        """The numbers ``(y, x)`` of a window that lies within the file."""
        wide, high = self._side
        rows, columns = window.toslices()
        places = [
            (x, y)
            for y in range(rows.start // high, -(-rows.stop // high))
            for x in range(columns.start // wide, -(-columns.stop // wide))
        ]
        blocks = await self._blocks.get(self._href, places, self._fetch)
        shape = rows.stop - rows.start, columns.stop - columns.start
        pixels = np.full(shape, _absent(self.nodata, self._dtype), self._dtype)
        for (x, y), block in zip(places, blocks, strict=True):
            if block is not None:
                _paste(pixels, (rows.start, columns.start), block, (y * high, x * wide))
        return pixels

    async def _fetch(self, places: list[_Place]) -> list[_Pixels | None]:
        counts = self._ifd.tile_byte_counts or []
        across = -(-self.width // self._side[0])
        kept = [place for place in places if counts[place[1] * across + place[0]] > 0]
        try:
            compressed = await self._tiff.fetch_tiles(kept, 0)
        except Exception as error:
            raise ReadError(_told(error)) from None
        try:
            decoded = await asyncio.gather(*(block.decode() for block in compressed))
        except Exception as error:
            raise DamagedError(f"a block cannot be decoded ({_told(error)})") from None
        found = dict(zip(kept, map(self._first_band, decoded), strict=True))
        return [found.get(place) for place in places]  # a sparse file leaves blocks out

    @staticmethod
    def _first_band(block: Any) -> _Pixels:
        pixels = np.asarray(block)
        return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, 0])


class GdalRaster:
    """A raster that GDAL reads."""

    def __init__(self, href: str, profile: str) -> None:
        self._href, self._profile = href, profile
        with self._opened() as file:
            if file.crs is None:
                raise ReadError("it does not tell its projection")
            if file.transform == Affine.identity():
                raise ReadError("it does not tell where it lies")
            self.crs, self.transform = file.crs, file.transform
            self.width, self.height, self.nodata = file.width, file.height, file.nodata

    async def read(self, window: Window) -> _Pixels:
        """The numbers ``(y, x)`` of a window that lies within the file."""
        async with turn(self._href, self._profile):
            return await asyncio.to_thread(self._read, window)

    def _read(self, window: Window) -> _Pixels:
        with self._opened() as file:
            pixels: _Pixels = file.read(1, window=window)
        return pixels

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        # GDAL remembers a failed open as "no such file": a retry must not ask its cache.
        uncached = {"CPL_VSIL_CURL_NON_CACHED": f"/vsicurl/{self._href.partition('?')[0]}"}
        try:
            with (
                rasterio.Env(**GDAL_SETTINGS, **uncached),
                rasterio.open(sign(self._href, self._profile)) as file,
            ):
                yield file
        except (rasterio.errors.RasterioError, SourceError) as error:
            raise DamagedError(_told(error)) from None


class _BlockCache:
    """Decoded blocks of files, those used last; what is under way is not asked for again."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._blocks: OrderedDict[tuple[str, int, int], asyncio.Future[_Pixels | None]]
        self._blocks = OrderedDict()

    async def get(
        self,
        href: str,
        places: list[_Place],
        fetch: Callable[[list[_Place]], Awaitable[list[_Pixels | None]]],
    ) -> list[_Pixels | None]:
        missing = [place for place in places if (href, *place) not in self._blocks]
        loop = asyncio.get_running_loop()
        self._blocks |= {(href, *place): loop.create_future() for place in missing}
        futures = [self._blocks[href, *place] for place in places]
        for place in places:
            self._blocks.move_to_end((href, *place))
        if missing:
            await self._fill(href, missing, fetch)
        found = []
        for place, future in zip(places, futures, strict=True):
            try:
                found.append(await future)
            except ReadError:
                if place in missing:
                    raise
                # Another window's request failed, perhaps for another block's sake.
                found += await self.get(href, [place], fetch)
        return found

    def forget(self, href: str) -> None:
        for key in [key for key in self._blocks if key[0] == href and self._blocks[key].done()]:
            self._drop(key)

    async def _fill(
        self,
        href: str,
        missing: list[_Place],
        fetch: Callable[[list[_Place]], Awaitable[list[_Pixels | None]]],
    ) -> None:
        futures = [self._blocks[href, *place] for place in missing]
        try:
            blocks = await fetch(missing)
        except BaseException as error:
            for place, future in zip(missing, futures, strict=True):
                del self._blocks[href, *place]
                future.set_exception(error)
                future.exception()  # else an error that nobody waits for is logged
            raise
        for future, block in zip(futures, blocks, strict=True):
            future.set_result(block)
            self._bytes += 0 if block is None else block.nbytes
        for key in list(self._blocks):
            if self._bytes <= self._limit:
                break
            if self._blocks[key].done():
                self._drop(key)

    def _drop(self, key: tuple[str, int, int]) -> None:
        block = self._blocks.pop(key).result()
        self._bytes -= 0 if block is None else block.nbytes


def _paste(
    pixels: _Pixels, corner: tuple[int, int], block: _Pixels, place: tuple[int, int]
) -> None:
    inside, outside = [], []
    for first, start, length, size in zip(corner, place, pixels.shape, block.shape, strict=True):
        begin, end = max(first, start), min(first + length, start + size)
        inside.append(slice(begin - first, end - first))
        outside.append(slice(begin - start, end - start))
    pixels[tuple(inside)] = block[tuple(outside)]


def _dtype(ifd: ImageFileDirectory) -> np.dtype[Any]:
    kind, bits = _KINDS.get(ifd.sample_format[0]), ifd.bits_per_sample[0]
    name = f"{kind}{bits / 8:g}"
    planar = ifd.planar_configuration == PlanarConfiguration.Planar and ifd.samples_per_pixel > 1
    if planar or name not in _DTYPES or ifd.compression not in _COMPRESSIONS:
        raise _UnsuitedError
    return np.dtype(name)


def _absent(nodata: float | None, dtype: np.dtype[Any]) -> float:
    """The number that stands in a block that the file leaves out."""
    if nodata is None or dtype.kind == "f":
        return nodata or 0.0
    limits = np.iinfo(dtype)
    return nodata if limits.min <= nodata <= limits.max else 0.0


def _projection(ifd: ImageFileDirectory) -> CRS:
    keys = ifd.geo_key_directory
    code = keys and (keys.projected_type or keys.geographic_type)
    if not code or code == _USER_DEFINED:
        raise _UnsuitedError
    return CRS.from_epsg(code)


def _transform(ifd: ImageFileDirectory) -> Affine:
    scale, tie = ifd.model_pixel_scale, ifd.model_tiepoint
    if not scale or not tie or len(tie) != 6 or ifd.model_transformation:
        raise _UnsuitedError
    column, row, _, x, y, _ = tie
    transform = Affine(scale[0], 0.0, x, 0.0, -scale[1], y) @ Affine.translation(-column, -row)
    keys = ifd.geo_key_directory
    if keys and keys.raster_type == _PIXEL_IS_POINT:
        # The tie point is the middle of its pixel, not the corner.
        transform = transform @ Affine.translation(-0.5, -0.5)
    return transform


def _nodata(ifd: ImageFileDirectory) -> float | None:
    text = ifd.gdal_nodata
    return None if text is None else float(text)


def _told(error: BaseException) -> str:
    # The libraries chain errors: the innermost one says what happened.
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).removeprefix("ReadError: ") or type(error).__name__
