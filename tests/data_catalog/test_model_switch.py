"""One model is in use at a time, and another takes its place as one."""

import threading
import time

import httpx
import pytest
from published_world import index, make_model, publish_segment, random_codes, tiles
from served_world import PLACES, publish_world, served

from data_catalog import stac
from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.catalogue_records import MODEL_IN_USE
from data_catalog.claims import claimed, removal
from data_catalog.code_tables import code_rows, publish_code_tables
from data_catalog.errors import CatalogueError
from data_catalog.garbage import garbage
from data_catalog.grid import Zone
from data_catalog.model_switch import coded_zones, switch_model
from data_catalog.models import load_model, publish_model
from data_catalog.query import open_codes
from data_catalog.verification import verify

OLD, NEW = make_model(seed=1), make_model(seed=2)
EAST = tiles(4, zone=Zone(33, "N"))


def publish_codes(catalogue: Catalogue, model, some_tiles) -> None:
    codes = random_codes(len(some_tiles), seed=int(model is NEW))
    publish_code_tables(catalogue, model, code_rows(index(some_tiles), codes))


def fill(catalogue: Catalogue) -> Catalogue:
    """Two zones with codes of the old model, and a new one that has those of one zone."""
    clouds = index(tiles(4)).assign(state="invalid", reason="cloud")
    publish_segment(catalogue, "clouds", clouds)
    publish_model(catalogue, OLD)
    publish_codes(catalogue, OLD, [*tiles(4), *EAST])
    publish_model(catalogue, NEW)
    publish_codes(catalogue, NEW, tiles(4))
    return catalogue


@pytest.fixture
def both(catalogue: Catalogue) -> Catalogue:
    return fill(catalogue)


def assert_switches(catalogue: Catalogue) -> None:
    assert catalogue.model_in_use() == catalogue.model_id() == OLD.model_id
    assert load_model(catalogue).model_id == open_codes(catalogue).model_id == OLD.model_id
    with pytest.raises(CatalogueError, match=r"no codes in 33N, where .* `rshash backfill --model"):
        switch_model(catalogue, NEW.model_id)
    assert catalogue.model_in_use() == OLD.model_id
    publish_codes(catalogue, NEW, EAST)
    assert coded_zones(catalogue, NEW.model_id) == ["32N", "33N"]
    assert open_codes(catalogue).model_id == OLD.model_id
    done = switch_model(catalogue, NEW.model_id)
    assert done == {"model": NEW.model_id, "in_place_of": OLD.model_id}
    assert open_codes(catalogue).model_id == catalogue.model_in_use() == NEW.model_id
    with pytest.raises(CatalogueError, match="in use already"):
        switch_model(catalogue, NEW.model_id)
    publish_model(catalogue, make_model(seed=3))
    assert catalogue.model_in_use() == NEW.model_id
    switch_model(catalogue, OLD.model_id)
    assert open_codes(catalogue).model_id == OLD.model_id


def test_a_new_model_answers_once_it_is_switched_to(both: Catalogue) -> None:
    assert_switches(both)
    assert verify(both) == []


def test_models_switch_in_a_bucket(bucket: str) -> None:
    catalogue = fill(Catalogue.create(f"s3://{bucket}/catalogue"))
    assert_switches(catalogue)

    def removing(record):
        return claimed(record, NEW.model_id, removal())

    catalogue.store.update_json(f"{MODELS}/collection.json", removing)
    with pytest.raises(CatalogueError, match="being removed"):
        switch_model(catalogue, NEW.model_id)


def test_a_catalogue_that_says_nothing_uses_its_first_model(both: Catalogue) -> None:
    path = both.root / MODELS / "collection.json"
    record = stac.read_json(path)
    del record[MODEL_IN_USE]
    stac.write_json(path, record)
    assert both.model_in_use() == OLD.model_id
    publish_model(both, make_model(seed=3))
    assert stac.read_json(path)[MODEL_IN_USE] == OLD.model_id


def test_what_cannot_be_used_is_refused(both: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="'mrhash-64-0' is not published"):
        switch_model(both, "mrhash-64-0")
    publish_codes(both, NEW, EAST)
    weights = both.root / MODELS / NEW.model_id / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CatalogueError, match=r"cannot be used: .*weights.safetensors has"):
        switch_model(both, NEW.model_id)
    assert both.model_in_use() == OLD.model_id


def test_a_model_in_use_that_is_missing_is_found(both: Catalogue) -> None:
    path = both.root / MODELS / "collection.json"
    stac.write_json(path, stac.read_json(path) | {MODEL_IN_USE: "mrhash-64-0"})
    [fault] = verify(both)
    assert fault.problem == "says that mrhash-64-0 is in use, but does not list it"
    with pytest.raises(CatalogueError, match=f"rshash catalog use {NEW.model_id}"):
        open_codes(both)
    assert open_codes(both, OLD.model_id).model_id == OLD.model_id


def test_the_model_in_use_is_no_garbage(catalogue: Catalogue) -> None:
    for seed in (1, 2, 3):
        publish_model(catalogue, make_model(seed=seed))
    assert [one.name for one in garbage(catalogue, 0)] == [f"{MODELS}/{NEW.model_id}"]
    switch_model(catalogue, NEW.model_id)
    assert [one.name for one in garbage(catalogue, 0)] == [f"{MODELS}/{OLD.model_id}"]


def test_a_reader_never_sees_a_mixture(both: Catalogue) -> None:
    publish_codes(both, NEW, EAST)
    seen, faults, ended = set(), [], threading.Event()

    def read() -> None:
        while not ended.is_set():
            codes = open_codes(both)
            rows = [codes.tile(tile_id)["code"] for tile_id in codes.tile_ids]
            seen.add((codes.model_id, tuple(rows)))

    def watched() -> None:
        try:
            read()
        except Exception as error:
            faults.append(error)

    reader = threading.Thread(target=watched)
    reader.start()
    deadline = time.monotonic() + 60
    while not faults and len(seen) < 2 and time.monotonic() < deadline:
        for model in (NEW, OLD):
            switch_model(both, model.model_id)
    ended.set()
    reader.join()
    assert not faults
    assert {model_id for model_id, _ in seen} == {OLD.model_id, NEW.model_id}
    assert len(seen) == 2, "each model's codes were seen in full, and only its own"


def test_the_service_follows_a_switch(tmp_path) -> None:
    catalogue = publish_world(tmp_path / "catalogue")
    publish_model(catalogue, NEW)
    publish_codes(catalogue, NEW, PLACES)
    with served(catalogue) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert client.get("/codes").json()["model_id"] == OLD.model_id
        switch_model(catalogue, NEW.model_id)
        deadline = time.monotonic() + 60
        while client.get("/codes").json()["model_id"] != NEW.model_id:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.get(f"/tiles/{PLACES[0].id}/similar").json()["model_id"] == NEW.model_id
