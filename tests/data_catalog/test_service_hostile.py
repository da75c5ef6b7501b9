import socket
import struct
import time
import zlib
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import pytest
from published_world import records
from served_world import PLACES, served

from data_catalog.service.uploads import LARGEST_BYTES

TILE = PLACES[0].id
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def client(world, address):
    before = records(world.root)
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client
    assert records(world.root) == before


def check_problem(answer, *statuses):
    assert answer.status_code in statuses
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert "Traceback" not in problem["detail"]
    assert len(problem["detail"]) < 1000
    return problem["detail"]


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "....//....//etc/passwd",
        "..%5c..%5cwindows",
        "%00",
        TILE + "%00.png",
        TILE + "/../../codes",
        "%ed%a0%80",
        "UTM1920-32N_٠١٧٦_2888",
        "UTM1920-99N_0176_2888",
        "x" * 3000,
        "<script>alert(1)</script>",
        "'; DROP TABLE tiles; --",
    ],
)
@pytest.mark.parametrize("rest", ["", "/similar", "/picture"])
def test_names_that_are_no_tiles_are_refused(client, name, rest):
    # As it is written: clients would tidy the path.
    connection = HTTPConnection(urlsplit(str(client.base_url)).netloc)
    path = "".join(c if c.isascii() and c not in " <>'" else "%3F" for c in f"/tiles/{name}{rest}")
    connection.putrequest("GET", path, skip_accept_encoding=True)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status in (404, 422), body
    assert answer.getheader("content-type") == "application/problem+json"
    assert b"root:" not in body
    connection.close()


@pytest.mark.parametrize("path", ["/../app.py", "/%2e%2e/app.py", "/vendor/..%2f..%2fapp.py"])
def test_the_page_s_folder_is_not_left(client, path):
    connection = HTTPConnection(urlsplit(str(client.base_url)).netloc)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()


@pytest.mark.parametrize(
    "query",
    [
        "k=0",
        "k=-1",
        "k=1001",
        f"k={10**400}",
        "k=ten",
        "k=1e3",
        "radius=-1",
        "limit=0",
        "offset=99999999999999999999",
        "minimum_clear=nan",
        "minimum_clear=2",
        "minimum_distance=inf",
        "minimum_distance=-5",
        "bbox=1,2,3",
        "bbox=/etc/passwd",
        "bbox=9,48,9,47",
        "bbox=9,-89,10,89.9",
        "bbox=" + "9" * 90,
        "period=yesterday",
        "period=2024-13-01",
        "period=2024-02-01/2024-01-01",
        "period=../..",
        "period=P30D",
        "period=0001-01-01T00:00:00%2B05:00/..",
        "radius=65",
    ],
)
def test_numbers_and_texts_out_of_range_are_refused(client, query):
    check_problem(client.get(f"/tiles/{TILE}/similar?{query}"), 422)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (f"/tiles/{TILE}/similar?kk=3", "did you mean k?"),
        (f"/similar?like={TILE}&minimum_distance_m=5000", "did you mean minimum_distance"),
        ("/tiles?bbox=8,47,10,49&limits=3", "did you mean limit?"),
        (f"/tiles/{TILE}?size=3", "There is no parameter 'size': expected none"),
    ],
)
def test_parameters_that_nothing_reads_are_refused_with_the_one_meant(client, path, meant):
    assert meant in check_problem(client.get(path), 422)


def test_texts_that_are_not_understood_are_answered_in_sentences(client):
    def refusal(query):
        return check_problem(client.get(f"/tiles/{TILE}/similar?{query}"), 422)

    assert "expected 'west,south,east,north' in degrees" in refusal("bbox=9,48")
    assert "expected '2024-06-01/2024-08-31', a day" in refusal("period=summer")


def test_addresses_without_end_are_refused(client):
    check_problem(client.get("/codes", params={"x": "y" * 5000}), 414)
    check_problem(client.get("/similar", params={"like": [TILE] * 40}), 422)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
def test_nothing_can_be_changed(client, method):
    check_problem(client.request(method, f"/tiles/{TILE}"), 405)


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": ' * 10_000, b"\x89PNG\r\n\x1a\n", b"II*\x00"]
)
def test_bodies_that_are_no_images_are_refused(client, content):
    check_problem(client.post("/similar", content=content, headers=PNG), 422)
    json = {"Content-Type": "application/json"}
    check_problem(client.post("/similar", content=content, headers=json), 415)


def huge_png(side):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_a_small_file_of_a_huge_image_is_refused_before_it_is_decoded(client):
    detail = check_problem(client.post("/similar", content=huge_png(60_000), headers=PNG), 422)
    assert "60000" in detail
    assert "/tmp" not in detail


def test_a_hundred_megabytes_are_cut_short(client):
    answer = client.post("/similar", content=(bytes(2**20) for _ in range(100)), headers=PNG)
    assert f"{LARGEST_BYTES:,}" in check_problem(answer, 413)
    declared = {**PNG, "Content-Length": str(100 * 2**20)}
    connection = HTTPConnection(urlsplit(str(client.base_url)).netloc)
    connection.putrequest("POST", "/similar")
    for name, value in declared.items():
        connection.putheader(name, value)
    connection.endheaders()
    # Without a byte of the body: the length that is declared is enough.
    assert connection.getresponse().status == 413
    connection.close()
    assert client.get("/healthz").status_code == 200


def test_an_upload_that_breaks_off_is_no_failure_of_the_service(client, address):
    def count(status):
        labels = f'method="POST",route="/similar",status="{status}"'
        line = f"rshash_request_seconds_count{{{labels}}}"
        return client.get("/metrics").text.count(line)

    host, port = address.rpartition("/")[2].split(":")
    with socket.create_connection((host, int(port))) as upload:
        head = f"POST /similar HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\n"
        upload.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode() + b"x" * 10)
        time.sleep(0.5)
    deadline = time.monotonic() + 60
    while not count(400):
        assert time.monotonic() < deadline, client.get("/metrics").text
        time.sleep(0.1)
    assert not count(500)


def test_images_are_switched_off_unless_asked_for(world):
    with served(world) as address:
        answer = httpx.post(f"{address}/similar", content=b"", headers=PNG, timeout=60)
    assert "--images" in check_problem(answer, 501)


def test_an_image_of_a_tile_is_answered(client, tmp_path):
    import numpy as np
    import rasterio

    path = tmp_path / "tile.tif"
    pixels = np.random.default_rng(0).integers(300, 2500, (3, 192, 192)).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", width=192, height=192, count=3, dtype="uint16"
    ) as file:
        file.write(pixels)
    tiff = {"Content-Type": "image/tiff"}
    answer = client.post("/similar?k=4", content=path.read_bytes(), headers=tiff)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["results"]) == 4
    assert answer.json()["results"][0]["away_km"] is None
    page = client.post("/similar?k=4&limit=3", content=path.read_bytes(), headers=tiff).json()
    assert page["results"] == answer.json()["results"][:3]
    rest = client.post(f"/similar{page['next']}", content=path.read_bytes(), headers=tiff).json()
    assert (rest["results"], rest["next"]) == (answer.json()["results"][3:], None)
    refused = client.post("/similar?minimum_distance=1", content=path.read_bytes(), headers=tiff)
    check_problem(refused, 422)
