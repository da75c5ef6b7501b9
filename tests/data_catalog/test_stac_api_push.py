"""What is published reaches a STAC API as agencies run it: once, whole, and as it was sent."""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pystac_client
import pytest
import requests
from published_world import SENSOR, index, make_model, publish_segment, random_codes, tiles
from stac_api import load, postgresql, postgresql_programs, stac_api
from stac_schemas import assert_valid

from data_catalog import stac_api_push
from data_catalog.api_records import difference
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, collection_of, publish_code_tables
from data_catalog.errors import CatalogueError
from data_catalog.models import publish_model
from data_catalog.stac_api_push import push

PAGE = Path(__file__).parents[2] / "docs" / "elsewhere.md"
FILES = "https://data.example.com/catalogue"
SEGMENTS = 5


@pytest.fixture(scope="module")
def database() -> Iterator[dict[str, str]]:
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL with PostGIS is not installed (Debian: postgresql-postgis)")
    with postgresql(programs) as connection:
        load(connection, [], [])
        yield connection


@pytest.fixture(scope="module")
def api(database: dict[str, str]) -> Iterator[str]:
    with stac_api(database, takes_records=True) as address:
        yield address


@pytest.fixture
def published(api: str, catalogue: Catalogue) -> Iterator[Catalogue]:
    for number in range(SEGMENTS):
        publish_segment(catalogue, f"2024060{number}", index(tiles(2), f"2024-06-0{number + 1}"))
    model = make_model()
    publish_model(catalogue, model)
    publish_codes(catalogue, seed=0)
    yield catalogue
    for collection in catalogue.collections():
        requests.delete(f"{api}/collections/{collection}", timeout=60)


def publish_codes(catalogue: Catalogue, seed: int) -> str:
    day = f"2024-06-1{seed}"
    rows = code_rows(index(tiles(3), day), random_codes(3, seed=seed))
    [report] = publish_code_tables(catalogue, make_model(), rows)
    return str(report["item"])


def counted(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {key: sum(row[key] for row in rows) for key in ("added", "updated", "unchanged")}


def test_records_arrive_once_and_as_they_were_sent(
    api: str, published: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stac_api_push, "BATCH_ITEMS", 2)
    assert counted(push(published, api, FILES)) == {"added": 7, "updated": 0, "unchanged": 0}
    assert counted(push(published, api, FILES)) == {"added": 0, "updated": 0, "unchanged": 7}
    first = published.item_ids(collection_of(make_model().model_id))[0]
    second = publish_codes(published, seed=1)
    assert counted(push(published, api, FILES)) == {"added": 1, "updated": 1, "unchanged": 6}

    client = pystac_client.Client.open(api)
    codes = client.get_collection(collection_of(make_model().model_id))
    assert codes is not None
    found = {item.id: item for item in codes.get_items()}
    assert found.keys() == {first, second}
    assert found[first].properties["deprecated"]
    href = found[second].assets["embeddings"].href
    assert href.startswith(f"{FILES}/{codes.id}/{second}/codes-")
    assert (published.root / href.removeprefix(f"{FILES}/")).is_file()
    assert found[second].properties["table:row_count"] == 3
    links = {link.rel: str(link.target) for link in found[second].links}
    for rel, item_id in (("predecessor-version", first), ("emb:model", make_model().model_id)):
        answer = requests.get(links[rel], timeout=60)
        assert answer.json()["id"] == item_id


def test_the_documentation_s_example_finds_the_tables(api: str, published: Catalogue) -> None:
    push(published, api, FILES)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    [example] = [example for example in examples if "pystac_client" in example]
    found: dict[str, Any] = {}
    exec(example.replace("https://stac.example.com", api), found)
    assert found["collections"] == [collection_of(make_model().model_id)]
    assert [href.startswith(FILES) for href in found["tables"]] == [True]


def test_what_the_api_gives_back_is_valid(api: str, published: Catalogue) -> None:
    push(published, api)
    client = pystac_client.Client.open(api)
    for collection in published.collections():
        assert_valid(requests.get(f"{api}/collections/{collection}", timeout=60).json())
        items = list(client.search(collections=[collection]).items_as_dicts())
        assert len(items) == len(published.item_ids(collection))
        for item in items:
            assert_valid(item)
            for asset in item["assets"].values():
                assert Path(asset["href"].removeprefix("file://")).exists()


def test_what_was_changed_there_is_put_right(api: str, published: Catalogue) -> None:
    push(published, api)
    address = f"{api}/collections/tiles-{SENSOR}/items/20240602"
    item = requests.get(address, timeout=60).json()
    item["properties"]["license"] = "CC0-1.0"
    assert requests.put(address, json=item, timeout=60).ok
    assert counted(push(published, api)) == {"added": 0, "updated": 1, "unchanged": 6}
    assert requests.get(address, timeout=60).json()["properties"]["license"] != "CC0-1.0"


def test_other_items_of_the_api_are_left_alone(api: str, published: Catalogue) -> None:
    push(published, api)
    items = f"{api}/collections/tiles-{SENSOR}/items"
    foreign = requests.get(f"{items}/20240602", timeout=60).json() | {"id": "foreign"}
    assert requests.post(items, json=foreign, timeout=60).ok
    assert counted(push(published, api)) == {"added": 0, "updated": 0, "unchanged": 7}
    assert requests.get(f"{items}/foreign", timeout=60).ok


@contextmanager
def unreliable(api: str) -> Iterator[tuple[str, list[str]]]:
    """A way to the API that fails every request once: before it, or once it has been answered."""
    tried: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            request = f"{self.command} {self.path}"
            tried.append(request)
            first = tried.count(request) == 1
            if first and self.command != "POST":
                self.answer(503, b"{}")
                return
            kind = {"Content-Type": "application/json"}
            answer = requests.request(
                self.command, f"{api}{self.path}", data=body, headers=kind, timeout=30
            )
            if first:
                # It has taken what was sent, but nobody learns of it.
                self.close_connection = True
                return
            here = f"http://127.0.0.1:{self.server.server_port}"
            self.answer(answer.status_code, answer.content.replace(api.encode(), here.encode()))

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "POST", "PUT"):
        setattr(Handler, f"do_{method}", Handler.forward)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", tried
    finally:
        server.shutdown()
        server.server_close()


def test_requests_that_fail_are_made_again(api: str, published: Catalogue) -> None:
    with unreliable(api) as (address, tried):
        assert counted(push(published, address)) == {"added": 7, "updated": 0, "unchanged": 0}
    assert any(tried.count(request) > 1 for request in tried if request.startswith("POST"))
    there = requests.get(f"{api}/collections/tiles-{SENSOR}/items", timeout=60).json()
    assert len(there["features"]) == SEGMENTS


def test_an_api_without_transactions_is_refused(
    database: dict[str, str], catalogue: Catalogue
) -> None:
    with stac_api(database) as address, pytest.raises(CatalogueError, match="takes no records"):
        push(catalogue, address)


def test_what_is_no_api_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="cannot be used as a STAC API"):
        push(catalogue, "http://127.0.0.1:9/")


RECORD = {
    "id": "a",
    "bbox": [1.0, 2.0],
    "properties": {"created": "2024-06-01T00:00:00Z", "nothing": None, "bits": 64},
    "links": [{"rel": "self", "href": "here"}, {"rel": "license", "href": "there"}],
}


def test_the_ways_of_apis_are_no_difference() -> None:
    there = copy.deepcopy(RECORD)
    there["properties"]["created"] = "2024-06-01T00:00:00.000000+00:00"
    del there["properties"]["nothing"]
    there["links"] = [{"rel": "license", "href": "there"}, {"rel": "root", "href": "far"}]
    there |= {"bbox": [1, 2.0000000000001], "collection": "of the API"}
    assert difference(RECORD, there) == ""


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"id": "b"}, "id"),
        ({"bbox": [1.0]}, "bbox"),
        ({"bbox": [1.0, 2.1]}, "bbox"),
        ({"properties": {"created": "2024-06-02T00:00:00Z", "bits": 64}}, "properties.created"),
        ({"properties": {"created": "2024-06-01T00:00:00Z"}}, "properties.bits"),
        ({"links": []}, "links"),
    ],
)
def test_a_difference_is_named(changed: dict[str, Any], named: str) -> None:
    assert difference(RECORD, RECORD | changed) == named
