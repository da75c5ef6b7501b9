"""Windows of rasters, compared with what rasterio reads of the same files."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fault_server import FaultServer, fault_server
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window
from tiny_rasters import HEIGHT, WIDTH, numbers, read, serve, write

from data_catalog import rasters
from data_catalog.errors import ReadError
from data_catalog.rasters import GdalRaster, TiledTiff

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    with fault_server(tmp_path_factory.getbasetemp()) as running:
        yield running


def assert_as_rasterio(href: object, path: Path, kind: type) -> None:
    """The whole file, and a window over block borders, are what rasterio reads."""
    for window in (None, Window(37, 11, 100, 90)):
        file, found = read(href, window)
        with rasterio.open(path) as expected:
            assert isinstance(file, kind)
            assert found.dtype == expected.dtypes[0]
            np.testing.assert_array_equal(found, expected.read(1, window=window))
            assert (file.width, file.height) == (expected.width, expected.height)
            assert (file.crs, file.transform) == (expected.crs, expected.transform)
            np.testing.assert_equal(file.nodata, expected.nodata)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
@pytest.mark.parametrize("compress", [None, "deflate", "zstd", "lzw"])
def test_dtypes_compressions_and_predictors(
    tmp_path: Path, dtype: str, compress: str | None
) -> None:
    predictors = [1, 2, 3] if dtype.startswith("float") else [1, 2]
    for predictor in predictors if compress else [None]:
        for endian in ("LITTLE", "BIG"):
            path = tmp_path / f"{predictor}-{endian}.tif"
            options = {"compress": compress, "predictor": predictor, "ENDIANNESS": endian}
            write(path, numbers(dtype), nodata=1, **options)
            assert_as_rasterio(path, path, TiledTiff)


VARIANTS: dict[str, dict[str, Any]] = {
    "BigTIFF": {"BIGTIFF": "YES"},
    "big-endian BigTIFF": {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
    "no nodata": {"nodata": None},
    "nodata is not a number": {"nodata": float("nan")},
    "degrees": {"crs": "EPSG:4326", "transform": from_origin(9, 48, 1e-4, 2e-4)},
    "oblong pixels": {"transform": from_origin(500_000, 5_300_000, 10, 20)},
    "one block": {"blockxsize": 256, "blockysize": 256},
    "tiny blocks": {"blockxsize": 16, "blockysize": 16},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_variants_of_tiled_files(
    tmp_path: Path, server: FaultServer, options: dict[str, Any]
) -> None:
    path = write(tmp_path / "a.tif", numbers("float32"), **{"nodata": 0, **options})
    assert_as_rasterio(path, path, TiledTiff)
    assert_as_rasterio(serve(server, path), path, TiledTiff)


def test_a_pixel_told_by_its_middle(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", numbers("uint16"))
    with rasterio.open(path, "r+") as file:
        corner = file.transform
        file.update_tags(AREA_OR_POINT="Point")
        file.transform = corner
    with rasterio.open(path) as file:
        assert file.tags()["AREA_OR_POINT"] == "Point" and file.transform == corner
    assert_as_rasterio(path, path, TiledTiff)


@pytest.mark.parametrize("bands", [2, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_the_first_of_several_bands(
    tmp_path: Path, interleave: str, dtype: str, bands: int
) -> None:
    # async-tiff undoes a predictor over planes as if pixels were interleaved.
    kind = TiledTiff if interleave == "pixel" else GdalRaster
    values = numbers(dtype, (bands, HEIGHT, WIDTH))
    for predictor in (1, 2):
        path = tmp_path / f"{predictor}.tif"
        write(path, values, interleave=interleave, compress="deflate", predictor=predictor)
        assert_as_rasterio(path, path, kind)


ODD: dict[str, dict[str, Any]] = {
    "packed bits": {"compress": "packbits"},
    "JPEG": {"compress": "jpeg"},
    "LERC": {"compress": "lerc", "ENDIANNESS": "BIG"},
    "four bits": {"NBITS": 4, "compress": "deflate"},
    "one bit": {"NBITS": 1, "compress": "deflate"},
    "turned": {"transform": Affine(10, 1, 500_000, 1, -10, 5_300_000)},
    "south up": {"transform": Affine(10, 0, 500_000, 0, 10, 5_300_000)},
    "a projection without a code": {"crs": "+proj=laea +lat_0=10 +lon_0=-81 +datum=WGS84"},
}


@pytest.mark.parametrize("options", ODD.values(), ids=ODD)
def test_tiled_files_that_gdal_is_left_to_read(
    tmp_path: Path, server: FaultServer, options: dict[str, Any]
) -> None:
    values = numbers("uint8").astype(int) % 2 ** options.get("NBITS", 8)
    path = write(tmp_path / f"{len(str(options))}.tif", values.astype(np.uint8), **options)
    assert_as_rasterio(path, path, GdalRaster)
    assert_as_rasterio(serve(server, path), path, GdalRaster)


@pytest.mark.parametrize("bits", [12, 15])
def test_sixteen_bit_numbers_in_fewer_bits(tmp_path: Path, bits: int) -> None:
    values = (numbers("uint16") % 2**bits).astype(np.uint16)
    path = write(tmp_path / "a.tif", values, NBITS=bits, compress="deflate")
    assert_as_rasterio(path, path, GdalRaster)


@pytest.mark.parametrize("driver", ["striped TIFF", "JP2OpenJPEG", "HFA"])
def test_other_formats_are_read_by_gdal(tmp_path: Path, server: FaultServer, driver: str) -> None:
    untiled = {"tiled": None, "blockxsize": None, "blockysize": None, "driver": driver}
    name = {"striped TIFF": "strips.tif", "JP2OpenJPEG": "a.jp2", "HFA": "a.img"}[driver]
    if driver == "striped TIFF":
        untiled |= {"driver": "GTiff", "compress": "deflate"}
    elif driver == "JP2OpenJPEG":
        untiled |= {"QUALITY": 100, "REVERSIBLE": "YES"}
    path = write(tmp_path / name, numbers("uint16"), **untiled)
    assert_as_rasterio(path, path, GdalRaster)
    assert_as_rasterio(serve(server, path), path, GdalRaster)


NOWHERE = {
    "a TIFF without projection": ("a.tif", {"crs": None}, "does not tell its projection"),
    "a TIFF without place": ("b.tif", {"transform": None}, "does not tell where it lies"),
    "a PNG": ("a.png", {"driver": "PNG", "crs": None}, "does not tell its projection"),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(("name", "options", "told"), NOWHERE.values(), ids=NOWHERE)
def test_a_file_that_does_not_tell_its_place_is_refused(
    tmp_path: Path, name: str, options: dict[str, Any], told: str
) -> None:
    if options.get("driver") == "PNG":
        untiled = {"tiled": None, "blockxsize": None, "blockysize": None, "transform": None}
        options = {**options, **untiled}
    path = write(tmp_path / name, numbers("uint8"), **options)
    path.with_suffix(".pgw").write_text("10\n0\n0\n-10\n500005\n5299995\n")
    with pytest.raises(ReadError, match=told):
        read(path)


SPARSE = [("float32", -9999), ("float32", np.nan), ("uint16", 65_535), ("int16", -32_768)]


@pytest.mark.parametrize(("dtype", "nodata"), [*SPARSE, ("uint16", 0), ("uint16", None)])
def test_blocks_left_out_of_a_sparse_file_are_nodata(
    tmp_path: Path, server: FaultServer, dtype: str, nodata: float | None
) -> None:
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "crs": "EPSG:32632", "transform": from_origin(0, 0, 10, 10)}
    shape = {"height": HEIGHT, "width": WIDTH, "count": 1, "dtype": dtype, "nodata": nodata}
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 48, "SPARSE_OK": True}
    with rasterio.open(path, "w", **profile, **shape, **blocks, compress="deflate") as file:
        file.write(numbers(dtype, (48, 64)), 1, window=Window(64, 48, 64, 48))
    for window in (Window(0, 0, 30, 20), Window(60, 40, 80, 70), Window(150, 100, 50, 50)):
        with rasterio.open(path) as file:
            expected = file.read(1, window=window)
        for href in (path, serve(server, path)):
            found = read(href, window)[1]
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_overviews_do_not_take_the_place_of_the_image(tmp_path: Path, server: FaultServer) -> None:
    cog = tmp_path / "cog.tif"
    untiled = {"tiled": None, "blockxsize": None, "blockysize": None, "transform": None}
    options = {"driver": "COG", "blocksize": 128, "compress": "deflate", "overviews": "AUTO"}
    place = {"transform": from_origin(0, 0, 10, 10)}
    write(cog, numbers("uint16", (600, 500)), **{**untiled, **options, **place})
    late = write(tmp_path / "late.tif", numbers("uint16", (600, 500)), compress="deflate")
    with rasterio.open(late, "r+") as file:
        file.build_overviews([2, 4])
    for path in (cog, late):
        with rasterio.open(path) as file:
            assert file.overviews(1)
        assert_as_rasterio(path, path, TiledTiff)
        assert_as_rasterio(serve(server, path), path, TiledTiff)


@pytest.mark.parametrize("size", [20, 1500])
def test_headers_shorter_and_longer_than_what_is_read_at_first(
    tmp_path: Path, server: FaultServer, size: int
) -> None:
    path = write(
        tmp_path / f"{size}.tif", numbers("uint8", (size, size)), blockxsize=16, blockysize=16
    )
    header = 8 * (-(-size // 16)) ** 2  # an offset and a length for every block
    assert (header > rasters.HEADER_BYTES) == (size == 1500)
    window = Window(3, 5, 17, 12)
    with rasterio.open(path) as file:
        expected = file.read(1, window=window)
    for href in (path, serve(server, path)):
        np.testing.assert_array_equal(read(href, window)[1], expected)
    if size == 20:
        assert path.stat().st_size < rasters.HEADER_BYTES
        assert len(server.requests()) == 1


@contextmanager
def server_without_ranges(folder: Path) -> Iterator[str]:
    """Answers every request with the whole file and status 200."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_a_server_that_ignores_ranges(tmp_path: Path) -> None:
    tiled = write(tmp_path / "a.tif", numbers("uint16", (400, 400)))
    strips = write(tmp_path / "b.tif", numbers("uint16"), tiled=None, blockxsize=None)
    with server_without_ranges(tmp_path) as address:
        assert_as_rasterio(f"{address}/a.tif", tiled, TiledTiff)
        assert_as_rasterio(f"{address}/b.tif", strips, GdalRaster)


def test_a_file_that_ends_too_early_is_told(tmp_path: Path, server: FaultServer) -> None:
    whole = write(tmp_path / "whole.tif", numbers("uint16", (600, 600)))
    path = tmp_path / "cut.tif"
    path.write_bytes(whole.read_bytes()[:-70_000])
    for href in (path, serve(server, path)):
        assert read(href, Window(0, 0, 60, 40))[1].any()
        with pytest.raises(ReadError):
            read(href)
