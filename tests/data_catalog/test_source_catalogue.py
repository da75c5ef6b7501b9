import http.server
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from tiny_source import SCL_CLEAR, TinySource

from data_catalog.areas import parse_period
from data_catalog.errors import SourceError
from data_catalog.http_server import serve_folder
from data_catalog.search_areas import ground_of
from data_catalog.sensors import get_sensor
from data_catalog.source_catalogue import open_source
from data_catalog.tile_cover import tiles_covering

S2, LANDSAT = get_sensor("sentinel-2-l2a"), get_sensor("landsat-c2-l2")
ALWAYS = "../.."
HERE = shapely.box(11.5, 48.1, 11.6, 48.2)


@pytest.fixture
def source(tmp_path: Path) -> TinySource:
    source = TinySource(tmp_path / "source")
    scl = np.full((60, 60), SCL_CLEAR, np.uint8)
    for day in (1, 20):
        moment = datetime(2024, 6, day, 10, 16, tzinfo=UTC)
        bands = {"B04": (np.full((120, 120), 2000, np.uint16), 10)}
        source.sentinel_2(f"june-{day}", 32632, 690000, 5334000, bands, scl, moment)
    red = {"red": (np.full((40, 40), 9000, np.uint16), 30)}
    for platform in ("landsat-7", "landsat-9"):
        source.scene(platform, "landsat-c2-l2", 32632, 690000, 5334000, red, platform=platform)
    return source


def test_a_static_catalogue_is_searched_by_area_and_period(source: TinySource) -> None:
    path = source.write()
    with serve_folder(source.folder) as address:
        for where in (str(path), str(path.parent), f"{address}/catalog.json"):
            origin = open_source(where)
            assert origin.profile == "generic"
            found = origin.search(S2, HERE, parse_period("2024-06-01/2024-06-02"))
            assert [item.id for item in found] == ["june-1"]
            assert [i.id for i in origin.search(S2, HERE, ALWAYS)] == ["june-1", "june-20"]
            assert origin.search(S2, shapely.box(0, 0, 1, 1), ALWAYS) == []
            href = found[0].assets["B04"].href
            assert href.startswith(address if where.startswith("http") else str(path.parent))


def test_only_the_sensor_s_platforms_are_found(source: TinySource) -> None:
    found = open_source(str(source.write())).search(LANDSAT, HERE, ALWAYS)
    assert [item.id for item in found] == ["landsat-9"]


def test_a_search_over_the_antimeridian_finds_scenes_on_both_sides(tmp_path: Path) -> None:
    source = TinySource(tmp_path / "source")
    scl = np.full((60, 60), SCL_CLEAR, np.uint8)
    bands = {"B04": (np.full((120, 120), 2000, np.uint16), 10)}
    source.sentinel_2("west", 32701, 180000, 8150020, bands, scl)
    source.sentinel_2("east", 32760, 817980, 8150020, bands, scl)
    source.write()
    origin = open_source(str(source.folder))
    bounds = {item.id: item.bbox for item in source.items}
    assert bounds["west"][0] > -180 and bounds["east"][2] < 180
    for west in (179.9, -180.1):
        area = shapely.box(west, -16.8, west + 0.2, -16.6)
        assert {item.id for item in origin.search(S2, area, ALWAYS)} == {"west", "east"}


@pytest.mark.parametrize("where", ["nowhere/catalog.json", "planetary-computre", "sensors.toml"])
def test_a_source_that_is_none_is_refused(where: str) -> None:
    with pytest.raises(SourceError, match="planetary-computer, earth-search") as refused:
        open_source(where)
    assert ("did you mean planetary-computer?" in str(refused.value)) == ("computre" in where)


@pytest.mark.parametrize("scheme", ["https", "htps"])
def test_a_source_that_is_none_is_told_without_its_password(scheme: str) -> None:
    with pytest.raises(SourceError, match=f"'{scheme}://127.0.0.1:1/v1'") as refused:
        open_source(f"{scheme}://joe:HIDDEN@127.0.0.1:1/v1?token=HIDDEN")
    assert "HIDDEN" not in str(refused.value)


def test_a_file_that_is_no_catalogue_is_refused(tmp_path: Path) -> None:
    for content in ("{", '{"type": "FeatureCollection"}', "[]"):
        (tmp_path / "catalog.json").write_text(content)
        with pytest.raises(SourceError, match="cannot be read as a STAC catalogue"):
            open_source(str(tmp_path))


def test_a_missing_collection_is_named_with_those_there_are(tmp_path: Path) -> None:
    source = TinySource(tmp_path / "source")
    red = {"red": (np.full((40, 40), 9000, np.uint16), 30)}
    source.scene("a", "landsat-c2-l2", 32632, 690000, 5334000, red)
    with pytest.raises(SourceError, match=r"no collection 'sentinel-2-l2a'.* are landsat-c2-l2\."):
        open_source(str(source.write())).search(S2, HERE, ALWAYS)
    for number in range(30):
        source.scene(f"b{number}", f"more-{number}", 32632, 690000, 5334000, red)
    with pytest.raises(SourceError, match=r"'landsat-c2' \(did you mean landsat.* and 11 more\."):
        open_source(str(source.write())).search_collection("landsat-c2", HERE, ALWAYS)


class _Api(http.server.BaseHTTPRequestHandler):
    """The search of a STAC API: two pages; the first request of all meets a busy server."""

    items: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    busy = True

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        base = f"http://{self.headers['Host']}"
        links = [
            {"rel": "root", "href": f"{base}/"},
            {"rel": "data", "href": f"{base}/collections"},
            {"rel": "search", "href": f"{base}/search", "method": "POST"},
        ]
        core = ["core", "item-search", "collections"]
        conforms = [f"https://api.stacspec.org/v1.0.0/{name}" for name in core]
        landing = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "API"}
        self._answer(200, landing | {"links": links, "conformsTo": conforms})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if type(self).busy:
            type(self).busy = False
            self._answer(429, {})
            return
        self.requests.append(body)
        page = {"type": "FeatureCollection", "features": self.items[1:], "links": []}
        if "token" not in body:
            following = {"rel": "next", "method": "POST", "merge": True, "body": {"token": "2"}}
            following["href"] = f"http://{self.headers['Host']}/search"
            page |= {"features": self.items[:1], "links": [following]}
        self._answer(200, page)

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def api(source: TinySource) -> Iterator[str]:
    source.write()
    s2 = [item for item in source.items if item.collection_id == "sentinel-2-l2a"]
    _Api.items = [item.to_dict(include_self_link=False) | {"links": []} for item in s2]
    _Api.requests, _Api.busy = [], True
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_api_is_searched_to_the_last_page_and_waited_for(api: str) -> None:
    period = parse_period("2024-06")
    found = open_source(f"{api}/").search(S2, HERE, period)
    assert [item.id for item in found] == ["june-1", "june-20"]
    asked = _Api.requests[0]
    assert asked["collections"] == ["sentinel-2-l2a"]
    assert asked["datetime"] == period
    assert shapely.geometry.shape(asked["intersects"]).equals(HERE)


def test_an_api_is_asked_for_both_sides_of_the_antimeridian(api: str) -> None:
    open_source(f"{api}/").search(S2, shapely.box(179.5, -17, 180.5, -16), ALWAYS)
    asked = shapely.union_all([shapely.geometry.shape(r["intersects"]) for r in _Api.requests])
    halves = [shapely.box(-180, -17, -179.5, -16), shapely.box(179.5, -17, 180, -16)]
    assert asked.equals(shapely.MultiPolygon(halves))


def test_hundreds_of_small_areas_are_few_requests(api: str) -> None:
    places = np.random.default_rng(5).uniform([-179, -60], [179, 70], (300, 2))
    tiles = tiles_covering(shapely.MultiPoint(places))
    found = open_source(f"{api}/").search(S2, ground_of(tiles), ALWAYS)
    assert [item.id for item in found] == ["june-1", "june-20"]
    asked = [r["intersects"] for r in _Api.requests if "token" not in r]
    assert len(asked) <= 6
    held = shapely.union_all([shapely.geometry.shape(area) for area in asked])
    assert all(held.contains(shapely.Point(place)) for place in places)
