import json
from pathlib import Path

import numpy as np
import pytest

from rshash.codes import pack
from rshash.errors import FeatureError, ModelError
from rshash.features import make_extractor
from rshash.model import Model, build_model
from rshash.mrhash import train_mrhash
from rshash.mrhash_settings import MrHashSettings
from rshash.streaming import FeatureFile


def make_tiles(n: int = 40) -> np.ndarray:
    random = np.random.default_rng(0)
    level = random.uniform(0, 0.4, (n, 2, 1, 1))
    return (level + random.normal(0, 0.05, (n, 2, 10, 10))).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> Model:
    extractor = make_extractor({"kind": "mosaiks", "bands": ["red", "nir"], "features": 16})
    settings = MrHashSettings(
        bits=16, clusters=4, autoencoder_epochs=2, hashing_epochs=2, hidden=16
    )
    training = train_mrhash([extractor(make_tiles())], settings)
    return build_model(
        training,
        extractor,
        primary_sensor="landsat-c2-l2",
        secondary_sensors=["sentinel-2-l2a"],
        tile_size=1920,
    )


def test_a_saved_model_makes_the_same_codes(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = Model.load(tmp_path / "model")
    assert loaded.model_id == model.model_id
    assert loaded.secondary_sensors == ("sentinel-2-l2a",)
    assert (loaded.bits, loaded.bands, loaded.tile_size) == (16, ("red", "nir"), 1920)
    assert loaded.training == model.training
    assert set(loaded.training) == {"n_tiles", "settings", "final_losses", "classes", "created"}
    words = model.encode(make_tiles())
    assert words.shape == (40, 1)
    np.testing.assert_array_equal(loaded.encode(make_tiles()), words)
    np.testing.assert_array_equal(loaded.encode_features(loaded.features(make_tiles())), words)


def test_a_model_of_whitened_features_is_saved_as_trained(model: Model, tmp_path: Path) -> None:
    settings = MrHashSettings(bits=8, clusters=2, hashing_epochs=1, hidden=8, components=4)
    training = train_mrhash([model.features(make_tiles())], settings)
    whitened = build_model(
        training, model.extractor, primary_sensor="landsat-c2-l2", tile_size=1920
    )
    whitened.save(tmp_path)
    loaded = Model.load(tmp_path)
    assert loaded.scaling.dimensions == 4
    np.testing.assert_array_equal(loaded.encode(make_tiles()), whitened.encode(make_tiles()))


def test_the_id_follows_the_content_alone(model: Model) -> None:
    def copy(**changes: object) -> Model:
        return Model(**{**vars(model), **changes})

    assert model.model_id.startswith("mrhash-16-")
    assert len(model.model_id) == len("mrhash-16-") + 10
    assert copy(training={}).model_id == model.model_id
    assert copy(tile_size=960).model_id != model.model_id
    other = type(model.scaling)(model.scaling.mean + 1)
    assert copy(scaling=other).model_id != model.model_id


def test_tiles_without_data_are_refused(model: Model) -> None:
    tiles = make_tiles(3)
    tiles[1] = np.nan
    with pytest.raises(FeatureError, match="1 of 3 tiles have no features, the first in row 1"):
        model.encode(tiles)


def test_features_that_no_code_can_be_made_of_are_refused(model: Model) -> None:
    features = model.features(make_tiles(4))
    expected = r"shape \(n, 16\) are expected, but found shape "
    with pytest.raises(FeatureError, match=expected + r"\(4, 5\): .* another extractor"):
        model.encode_features(features[:, :5])
    with pytest.raises(FeatureError, match=expected + r"\(16,\): give one row for each tile"):
        model.encode_features(features[0])
    features[2:, 3] = -np.inf
    with pytest.raises(FeatureError, match=r"2 of 4 tiles have infinite ones, the first in row 2"):
        model.encode_features(features)
    features[1, 7] = np.nan
    with pytest.raises(FeatureError, match=r"1 of 4 .* row 1: a row with NaN .* leave it out"):
        model.encode_features(features)


def test_features_on_disk_are_read_block_by_block(model: Model, tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)
    with FeatureFile.create(tmp_path / "features.npy", features.shape, np.float32) as writer:
        writer.append(features)
    longest = 0

    class Watched(FeatureFile):
        def __getitem__(self, rows: slice, /) -> np.ndarray:
            nonlocal longest
            found = super().__getitem__(rows)
            longest = max(longest, len(found))
            return found

    file = Watched.open(tmp_path / "features.npy")
    words = model.encode_features(file)
    np.testing.assert_array_equal(words, model.encode_features(features))
    np.testing.assert_array_equal(pack(model.outputs(file)), words)
    assert 0 < longest < 10_000
    assert model.encode_features(features[:0]).shape == (0, 1)
    features[[9000, 19_000], 2] = np.nan
    with pytest.raises(FeatureError, match=r"2 of 20000 tiles have no features.* row 9000"):
        model.encode_features(features)


def test_damaged_models_are_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.json is missing"):
        Model.load(tmp_path)
    model.save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ModelError, match=r"damaged.*SHA-256"):
        Model.load(tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors is missing"):
        Model.load(tmp_path)
    weights.write_bytes(good)
    description = tmp_path / "model.json"
    content = json.loads(description.read_text())
    for change, message in (
        ({"tile_size": 960}, "its content is"),
        ({"format": 99}, "format 99"),
        ({"head": {}}, "cannot be rebuilt"),
        # A petabyte, were it made before it is compared with the weights.
        ({"head": {**content["head"], "hidden": 10**13}}, "cannot be rebuilt"),
        ({"extractor": {**content["extractor"], "statistics": {"red": ["x", 1]}}}, "be rebuilt"),
        ({"weights": {**content["weights"], "file": "/dev/zero"}}, "names '/dev/zero'"),
    ):
        description.write_text(json.dumps({**content, **change}))
        with pytest.raises(ModelError, match=message):
            Model.load(tmp_path)
    weights.unlink()
    weights.mkdir()
    description.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="cannot be read"):
        Model.load(tmp_path)
    description.write_text("{")
    with pytest.raises(ModelError, match="does not describe a model"):
        Model.load(tmp_path)


def test_the_extractor_must_be_the_one_trained_on(model: Model) -> None:
    training = train_mrhash(
        [model.features(make_tiles())],
        MrHashSettings(bits=8, clusters=2, autoencoder_epochs=1, hashing_epochs=1, hidden=8),
    )
    other = make_extractor({"kind": "mosaiks", "bands": ["red"], "features": 8})
    with pytest.raises(ModelError, match=r"length 16.* gives 8"):
        build_model(training, other, primary_sensor="landsat-c2-l2", tile_size=1920)
