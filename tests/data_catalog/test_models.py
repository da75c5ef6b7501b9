import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_world import SENSOR, index, make_model, publish_segment, random_codes, tiles
from stac_schemas import assert_catalogue_valid

from data_catalog import models
from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.code_tables import (
    LEARNED,
    NETWORK,
    code_rows,
    codes_of,
    collection_of,
    publish_code_tables,
    published_table,
    with_learned_codes,
)
from data_catalog.errors import CatalogueError
from data_catalog.models import (
    learned_codes,
    load_model,
    publish_model,
    publish_pseudo_labels,
    publish_training,
)
from rshash.ahcl import AhclSettings, train_ahcl
from rshash.labels import TileLabels
from rshash.model import build_model
from rshash.mrhash import train_mrhash
from rshash.mrhash_settings import MrHashSettings

OBSERVED = index(sorted(tiles(20)))


@pytest.fixture
def catalogue(tmp_path):
    catalogue = Catalogue.create(tmp_path / "catalogue")
    publish_segment(catalogue, "night", OBSERVED)
    return catalogue


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def training():
    features = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    settings = MrHashSettings(bits=16, clusters=4, autoencoder_epochs=1, hashing_epochs=1)
    return train_mrhash([features], settings)


def test_learned_codes_are_published_with_the_model_and_come_back(catalogue, model):
    learned = code_rows(OBSERVED.iloc[3:9], random_codes(6), LEARNED)
    publish_model(catalogue, model, learned)
    found = learned_codes(catalogue, model.model_id)
    assert np.array_equal(codes_of(found, 64), random_codes(6))
    assert set(found["code_source"]) == {LEARNED}
    rows = with_learned_codes(code_rows(OBSERVED, random_codes(20, seed=2)), found, 64)
    assert list(np.flatnonzero(rows["code_source"] == LEARNED)) == list(range(3, 9))
    item = catalogue.item(MODELS, model.model_id)
    asset = item.assets["learned-codes"]
    content = Path(asset.get_absolute_href()).read_bytes()
    assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert asset.extra_fields["table:row_count"] == 6
    assert "with labels" in item.properties["processing:lineage"]
    assert load_model(catalogue).model_id == model.model_id
    assert assert_catalogue_valid(catalogue.root) == 5


def test_a_model_without_labels_has_no_learned_codes(catalogue, model):
    publish_model(catalogue, model)
    assert learned_codes(catalogue, model.model_id) is None
    with pytest.raises(CatalogueError, match="not published"):
        learned_codes(catalogue, "ahcl-64-0")


def test_pseudo_labels_come_with_a_picture(catalogue, model):
    probabilities = np.full((20, 4), 0.25, np.float32)
    item_id = publish_pseudo_labels(catalogue, model, list(OBSERVED["tile_id"]), probabilities)
    asset = catalogue.item(f"labels-{model.model_id}", item_id).assets["overview"]
    assert (asset.media_type, asset.roles) == ("image/png", ["overview"])
    with Image.open(asset.get_absolute_href()) as picture:
        assert picture.format == "PNG" and picture.width > 600


def test_a_run_cut_off_between_labels_and_model_is_made_up_for(
    catalogue, model, training, monkeypatch
):
    with monkeypatch.context() as cut:
        cut.setattr(models, "publish_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish_training(catalogue, model, training, OBSERVED)
    assert catalogue.latest_model_id() is None, "the next night trains again"
    assert publish_training(catalogue, model, training, OBSERVED) == model.model_id
    assert catalogue.item_ids(f"labels-{model.model_id}") == [f"{model.model_id}-labels"]
    before = catalogue.contents()
    publish_training(catalogue, model, training, OBSERVED)
    assert catalogue.contents() == before
    assert assert_catalogue_valid(catalogue.root) == 7


def test_codes_learned_from_labels_reach_the_table(catalogue, model):
    labelled = OBSERVED.iloc[:12]
    values = np.eye(2, dtype=bool)[np.arange(12) % 2]
    labels = TileLabels(tuple(labelled["tile_id"]), ("forest", "lake"), values)
    features = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    training = train_ahcl(features[:12], labels, AhclSettings(bits=16, iterations=2, hidden=0))
    learned = build_model(
        training, model.extractor, primary_sensor=SENSOR, tile_size=model.tile_size
    )
    model_id = publish_training(catalogue, learned, training, labelled)

    network = code_rows(OBSERVED, load_model(catalogue, model_id).encode_features(features))
    rows = with_learned_codes(network, learned_codes(catalogue, model_id), 16)
    publish_code_tables(catalogue, learned, rows)
    [item] = catalogue.items(collection_of(model_id))
    table = published_table(catalogue, item)
    assert list(table["code_source"]) == [LEARNED] * 12 + [NETWORK] * 8
    assert np.array_equal(codes_of(table, 16)[:12], training.codes)
    assert np.array_equal(codes_of(table, 16)[12:], codes_of(network, 16)[12:])
