import gzip
import io
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from published_world import SENSOR, index, make_model, publish_segment, random_codes, tiles
from served_world import CODES, LABELS, PLACES, publish_world, served

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, collection_of, publish_code_tables
from data_catalog.model_switch import switch_model
from data_catalog.models import publish_model
from data_catalog.query import open_codes
from data_catalog.query_filters import Filters
from data_catalog.rollback import roll_back
from data_catalog.service.snapshots import published_version

TILE = PLACES[11].id


@pytest.fixture(scope="module")
def codes(world):
    return open_codes(world)


@pytest.fixture(scope="module")
def client(address):
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


def ids(answer):
    return [tile["tile_id"] for tile in answer["results"]]


def test_similar_tiles_are_those_of_the_library(client, codes):
    answer = client.get(f"/tiles/{TILE}/similar", params={"k": 9}).json()
    expected = codes.similar(TILE, 9)
    assert ids(answer) == expected["tile_id"].tolist()
    assert [tile["distance"] for tile in answer["results"]] == expected["distance"].tolist()
    first = answer["results"][0]
    assert first["away_km"] == pytest.approx(expected["away_km"][0], abs=1e-5)
    assert first["datetime"] == "2024-06-01T00:00:00Z"
    assert first["label"] == LABELS[[tile.id for tile in PLACES].index(first["tile_id"])]
    corners = np.array(expected.geometry[0].exterior.coords[:4])
    assert np.abs(np.array(first["corners"]) - corners).max() < 1e-6


def test_filters_narrow_the_answer(client, codes):
    far = client.get(f"/tiles/{TILE}/similar", params={"k": 40, "minimum_distance": 5000}).json()
    expected = codes.similar(TILE, 40, filters=Filters(minimum_distance_m=5000))
    assert ids(far) == expected["tile_id"].tolist()
    assert 0 < len(ids(far)) < 39
    near = client.get(f"/tiles/{TILE}/similar", params={"k": 40, "radius": 0}).json()
    assert ids(near) == [tile.id for i, tile in enumerate(PLACES) if i % 8 == 3 and tile.id != TILE]
    for nothing in ({"period": "2020-01-01/2020-12-31"}, {"minimum_clear": 1}):
        assert client.get(f"/tiles/{TILE}/similar", params=nothing).json()["found"] == 0
    lon, lat = PLACES[0].centre
    box = f"{lon - 0.01:.4f},{lat - 0.01:.4f},{lon + 0.01:.4f},{lat + 0.01:.4f}"
    assert ids(client.get(f"/tiles/{TILE}/similar", params={"bbox": box}).json()) == [PLACES[0].id]


def test_pages_join_to_the_whole(client):
    whole = ids(client.get(f"/tiles/{TILE}/similar", params={"k": 20}).json())
    address, found = f"/tiles/{TILE}/similar?k=20&limit=8", []
    while address:
        page = client.get(address).json()
        found += ids(page)
        address = page["next"] and f"/tiles/{TILE}/similar{page['next']}"
    assert found == whole


def test_a_place_asks_for_its_tile(client):
    lon, lat = PLACES[11].centre
    answer = client.get("/similar", params={"lon": lon, "lat": lat}).json()
    assert answer["query"] == {"tile_id": TILE}
    assert ids(answer) == ids(client.get(f"/tiles/{TILE}/similar").json())


def test_examples_are_more_and_less_like(client, codes):
    like, unlike = [PLACES[0].id, PLACES[9].id], [PLACES[2].id]
    answer = client.get("/similar", params={"like": like, "unlike": unlike, "k": 7}).json()
    assert ids(answer) == codes.similar_to_examples(like, unlike, 7)["tile_id"].tolist()
    assert client.get("/similar").status_code == 422
    assert client.get("/similar", params={"lon": 9, "like": like}).status_code == 422


def test_a_tile_tells_its_code_and_label(client):
    tile = client.get(f"/tiles/{TILE}").json()
    assert tile["code"] == f"{int(CODES[11, 0]):016x}"
    assert (tile["label"], tile["code_source"]) == (LABELS[11], "network")
    assert tile["geometry"]["type"] == "Polygon"


def test_tiles_of_a_region_are_geojson(client):
    answer = client.get("/tiles", params={"bbox": "6,47,10,52"})
    assert answer.headers["content-type"] == "application/geo+json"
    assert [feature["id"] for feature in answer.json()["features"]] == sorted(t.id for t in PLACES)
    few = client.get("/tiles", params={"bbox": "6,47,10,52", "limit": 5}).json()
    assert (len(few["features"]), few["total"]) == (5, 40)
    west = PLACES[0].centre[0]
    over_the_antimeridian = client.get("/tiles", params={"bbox": f"179,47,{west:.5f},52"}).json()
    assert 0 < over_the_antimeridian["total"] < 40


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_pictures_share_one_stretch(client, image_format):
    def brightness(tile):
        params = {"size": 48, "format": image_format}
        answer = client.get(f"/tiles/{tile.id}/picture", params=params)
        assert answer.headers["content-type"] == f"image/{image_format}"
        picture = Image.open(io.BytesIO(answer.content))
        assert picture.size == (48, 48)
        return np.asarray(picture.convert("RGB")).mean()

    # The world grows brighter from tile to tile: in stretches of their own all would look the same.
    assert brightness(PLACES[0]) + 20 < brightness(PLACES[20]) + 10 < brightness(PLACES[39])


def test_an_unchanged_answer_costs_no_body(client):
    for address in (f"/tiles/{TILE}", f"/tiles/{TILE}/similar", "/codes", f"/tiles/{TILE}/picture"):
        first = client.get(address)
        again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert client.get(address, headers={"If-None-Match": '"other"'}).content == first.content
    kept = client.get(f"/tiles/{TILE}/picture", params={"version": first.headers["etag"][3:-1]})
    assert "immutable" in kept.headers["cache-control"]


@pytest.mark.parametrize("path", [f"/tiles/{TILE}/similar", "/codes", "/healthz", "/"])
def test_head_tells_what_get_would_send(client, path):
    whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length", "etag"):
        assert head.headers.get(name) == whole.headers.get(name)
    assert "head" not in client.get("/openapi.json").json()["paths"].get(path, {})


def test_answers_are_compressed_for_who_takes_it(client):
    with client.stream("GET", "/tiles?bbox=6,47,10,52", headers={"Accept-Encoding": "gzip"}) as one:
        packed = b"".join(one.iter_raw())
    assert one.headers["content-encoding"] == "gzip"
    plain = client.get("/tiles?bbox=6,47,10,52", headers={"Accept-Encoding": "identity"})
    assert gzip.decompress(packed) == plain.content


def test_other_pages_may_read_and_scripts_are_our_own(client):
    answer = client.get("/codes", headers={"Origin": "https://elsewhere.example"})
    assert answer.headers["access-control-allow-origin"] == "*"
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
    asked["Access-Control-Request-Headers"] = "if-none-match"
    assert client.options("/codes", headers=asked).status_code == 200
    for address, status in (("/tiles/none", 422), (f"/codes?{'x' * 5000}", 414)):
        answer = client.get(address, headers={"Origin": "https://elsewhere.example"})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "*"
    # After an upgrade no page is put together of old and new files.
    assert client.get("/explorer.js").headers["cache-control"] == "no-cache"
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_metrics_count_by_route(client):
    def count():
        text = client.get("/metrics").text
        [family] = [
            f for f in text_string_to_metric_families(text) if f.name == "rshash_request_seconds"
        ]
        return {
            (s.labels["route"], s.labels["status"]): s.value
            for s in family.samples
            if s.name.endswith("_count")
        }

    before = count()
    for tile in PLACES[:3]:
        client.get(f"/tiles/{tile.id}")
    client.get("/tiles/none-such")
    after = count()
    assert after["/tiles/{tile_id}", "200"] == before.get(("/tiles/{tile_id}", "200"), 0) + 3
    assert after["/tiles/{tile_id}", "422"] == before.get(("/tiles/{tile_id}", "422"), 0) + 1


def test_many_at_once_get_their_own_answers(client, codes):
    expected = {t.id: codes.similar(t.id, 5)["tile_id"].tolist() for t in PLACES}
    wanted = [tile.id for tile in PLACES] * 3

    def ask(tile_id):
        return ids(client.get(f"/tiles/{tile_id}/similar", params={"k": 5}).json())

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, wanted)) == [expected[tile_id] for tile_id in wanted]


def test_what_one_asks_in_vain_does_not_spoil_the_others(client):
    unknown = tiles(1, row=2990)[0].id

    def ask(tile_id):
        return client.get(f"/tiles/{tile_id}/similar", params={"k": 6}).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(ask, [unknown, *(tile.id for tile in PLACES)] * 4))
    assert statuses == [404, *[200] * len(PLACES)] * 4


def test_a_new_version_is_served_without_dropping_a_request(tmp_path):
    catalogue = publish_world(tmp_path / "catalogue")
    model = make_model()
    with served(catalogue) as address, httpx.Client(base_url=address, timeout=60) as client:
        etag = client.get(f"/tiles/{TILE}").headers["etag"]
        more = tiles(48)
        publish_code_tables(catalogue, model, code_rows(index(more[40:]), random_codes(8, seed=9)))
        statuses, answer = [], client.get("/healthz").json()
        while answer["tiles"] == 40:
            statuses.append(client.get(f"/tiles/{TILE}/similar").status_code)
            answer = client.get("/healthz").json()
        assert answer["tiles"] == 48
        assert set(statuses) <= {200}
        changed = client.get(f"/tiles/{more[47].id}", headers={"If-None-Match": etag})
        assert changed.status_code == 200
        assert "rshash_reloads_total 1.0" in client.get("/metrics").text


def test_codes_of_another_model_make_no_version_until_it_is_in_use(tmp_path):
    catalogue = publish_world(tmp_path / "catalogue")
    before = published_version(catalogue)
    other = make_model(seed=2)
    publish_model(catalogue, other)
    publish_code_tables(catalogue, other, code_rows(index(PLACES), random_codes(len(PLACES))))
    assert published_version(catalogue) == before
    assert published_version(catalogue, other.model_id) != before
    switch_model(catalogue, other.model_id)
    assert published_version(catalogue) == published_version(catalogue, other.model_id)


def test_a_damaged_version_is_passed_over_and_told(tmp_path):
    catalogue = publish_world(tmp_path / "catalogue")
    with served(catalogue) as address, httpx.Client(base_url=address, timeout=60) as client:
        pointer = catalogue.root / f"tiles-{SENSOR}" / "collection.json"
        text = pointer.read_text()
        pointer.write_text(text[:100])
        while "rshash_reload_failures_total 0.0" in client.get("/metrics").text:
            assert client.get(f"/tiles/{TILE}/similar").status_code == 200
        pointer.write_text(text)
        assert client.get(f"/tiles/{TILE}/similar?k=3").json()["found"] == 3


def test_a_table_that_is_cut_off_is_told_until_a_good_version_is_gone_back_to(tmp_path):
    catalogue = publish_world(tmp_path / "catalogue")
    model = make_model()
    publish_code_tables(catalogue, model, code_rows(index(PLACES, "2024-06-05"), CODES))
    current = catalogue.items(collection_of(model.model_id))[0]
    with served(catalogue) as address, httpx.Client(base_url=address, timeout=60) as client:
        os.truncate(catalogue.asset_path(current, "embeddings"), 0)
        answer = client.get(f"/tiles/{TILE}/similar")
        assert answer.status_code == 503
        assert "log says which file" in answer.json()["detail"]
        assert str(tmp_path) not in answer.text
        before = current.id.replace("-v2", "-v1")
        roll_back(catalogue, before)
        while answer.status_code == 503:
            answer = client.get(f"/tiles/{TILE}/similar")
        assert answer.json()["found"] == 10


def test_a_damaged_segment_takes_away_its_own_pictures_only(tmp_path):
    catalogue = publish_world(tmp_path / "catalogue")
    damaged = tiles(48)[40:]
    publish_segment(catalogue, "segment-2", index(damaged))
    shutil.rmtree(catalogue.root / f"tiles-{SENSOR}" / "segment-2" / "pixels.zarr")
    rows = code_rows(index(damaged), random_codes(8, seed=9))
    publish_code_tables(catalogue, make_model(), rows)
    with served(catalogue) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert client.get(f"/tiles/{TILE}/picture").status_code == 200
        assert client.get(f"/tiles/{damaged[0].id}/picture").status_code == 503


def test_serving_needs_no_torch(world):
    script = f"""
import sys
from data_catalog.catalogue import Catalogue
from data_catalog.service.app import make_app
from fastapi.testclient import TestClient
with TestClient(make_app(Catalogue.open({str(world.root)!r}))) as client:
    assert client.get("/tiles/{TILE}/similar").json()["found"] == 10
    assert client.get("/tiles/{TILE}/picture").status_code == 200
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("False", 0), done.stderr


def test_a_catalogue_without_codes_is_refused_at_once(tmp_path):
    from data_catalog.errors import CatalogueError
    from data_catalog.service.app import make_app

    with pytest.raises(CatalogueError, match="rshash train"):
        make_app(Catalogue.create(tmp_path / "catalogue"))
