import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from data_catalog.errors import SourceError
from data_catalog.http_server import serve_folder


def fetch(address: str, **headers: str):
    return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20)


def test_serves_whole_files_and_ranges(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "data.bin").write_bytes(bytes(range(256)))
    with serve_folder(tmp_path) as base:
        assert fetch(f"{base}/inner/data.bin").read() == bytes(range(256))
        part = fetch(f"{base}/inner/data.bin", Range="bytes=10-19")
        assert part.status == 206 and part.read() == bytes(range(10, 20))
        assert part.headers["Content-Range"] == "bytes 10-19/256"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(f"{base}/none.bin")
        with pytest.raises(urllib.error.HTTPError):
            fetch(f"{base}/../../etc/hostname")
    with pytest.raises(urllib.error.URLError):
        fetch(f"{base}/inner/data.bin")


def test_gdal_reads_windows_through_it(tmp_path):
    values = np.arange(600 * 600, dtype=np.uint32).reshape(600, 600)
    profile = {"driver": "COG", "width": 600, "height": 600, "count": 1, "dtype": "uint32"}
    transform = from_origin(600_000, 5_300_040, 10, 10)
    with rasterio.open(
        tmp_path / "a.tif", "w", crs="EPSG:32632", transform=transform, **profile
    ) as file:
        file.write(values, 1)
    with serve_folder(tmp_path) as base, rasterio.open(f"{base}/a.tif") as file:
        window = rasterio.windows.Window(500, 10, 40, 30)
        np.testing.assert_array_equal(file.read(1, window=window), values[10:40, 500:540])


def test_refuses_what_it_cannot_serve(tmp_path):
    with pytest.raises(SourceError, match="no folder"), serve_folder(tmp_path / "none"):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SourceError, match=str(port)), serve_folder(tmp_path, port):
            pass
