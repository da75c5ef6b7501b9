import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rshash.checkpoints import Checkpoint
from rshash.errors import CheckpointError, CodeError, FeatureError, TrainingError
from rshash.evaluation import mean_average_precision
from rshash.features import make_extractor
from rshash.hashing import Hashing
from rshash.model import Model, build_model
from rshash.mrhash import MrHashTraining, _Stages, train_mrhash
from rshash.mrhash_settings import MrHashSettings, resolved_settings
from rshash.neighbours import Directions
from rshash.pixels import TilePixels
from rshash.progress import Progress

SMALL = MrHashSettings(bits=16, clusters=6, hashing_epochs=10, batch_size=32, hidden=64)
PUBLISHED = replace(
    MrHashSettings.paper(bits=16, clusters=6), autoencoder_epochs=15, hashing_epochs=20
)
QUICK = MrHashSettings(bits=8, clusters=4, hashing_epochs=2, hidden=16)


def make_places(n: int = 360, classes: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of two sources of the same places, the first noisier, and the places' classes."""
    random = np.random.default_rng(0)
    labels = random.integers(classes, size=n)
    sources = []
    for dimensions, noise in ((24, 1.0), (32, 0.4)):
        centres = random.normal(size=(classes, dimensions))
        sources.append(centres[labels] + noise * random.normal(size=(n, dimensions)) + 3)
    return sources[0].astype(np.float32), sources[1].astype(np.float32), labels


def assert_equal(one: MrHashTraining, other: MrHashTraining) -> None:
    for a, b in zip(one.head.parameters(), other.head.parameters(), strict=True):
        assert torch.equal(a, b)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert one.losses == other.losses


@pytest.mark.parametrize(("settings", "least"), [(SMALL, 0.8), (PUBLISHED, 0.6)])
def test_codes_bring_like_places_together(settings: MrHashSettings, least: float) -> None:
    primary, secondary, labels = make_places()
    steps: list[Progress] = []
    training = train_mrhash([primary[60:], secondary[60:]], settings, progress=steps.append)
    words = training.encode_features(primary)
    precision = mean_average_precision(words[:60], labels[:60], words[60:], labels[60:])
    assert precision > least
    for stage, losses in training.losses.items():
        assert [s.epoch for s in steps if s.stage == stage] == list(range(1, len(losses) + 1))
        assert losses == [s.loss for s in steps if s.stage == stage]
    assert training.probabilities.shape == (300, 6)
    assert training.probabilities.dtype == np.float32
    np.testing.assert_allclose(training.probabilities.sum(axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize("latent_space", ["neighbours", "autoencoder"])
def test_the_same_seed_gives_the_same_result_and_leaves_torchs_own_alone(latent_space: str) -> None:
    primary, secondary, _ = make_places(120)
    settings = replace(QUICK, latent_space=latent_space, autoencoder_epochs=2, seed=7)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = train_mrhash([primary, secondary], settings)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert_equal(first, train_mrhash([primary, secondary], settings))


@pytest.mark.parametrize("latent_space", ["neighbours", "autoencoder"])
@pytest.mark.parametrize("patience", [None, 2])
@pytest.mark.parametrize("ended_in", [("autoencoder", 1), ("hashing", 1), ("hashing", 3)])
def test_a_resumed_training_gives_what_an_uninterrupted_one_gives(
    tmp_path: Path, latent_space: str, patience: int | None, ended_in: tuple[str, int]
) -> None:
    if latent_space == "neighbours" and ended_in[0] == "autoencoder":
        pytest.skip("no such stage")
    sources = make_places(200)[:2]
    settings = replace(
        QUICK,
        latent_space=latent_space,
        autoencoder_epochs=2,
        hashing_epochs=4,
        patience=patience,
    )

    def end(step: Progress) -> None:
        if (step.stage, step.epoch) == ended_in:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_mrhash(sources, settings, progress=end, checkpoint=tmp_path)
    steps: list[Progress] = []
    resumed = train_mrhash(sources, settings, progress=steps.append, checkpoint=tmp_path)
    assert len(steps) < sum(map(len, resumed.losses.values()))
    assert_equal(resumed, train_mrhash(sources, settings))


@pytest.mark.parametrize("result", ["latent", "centres"])
def test_ended_before_the_first_epoch_it_resumes_to_the_same_bits(
    tmp_path: Path, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = make_places(200)[:2]
    whole = Checkpoint.keep

    def keep(self: Checkpoint, name: str, tensors: dict[str, torch.Tensor]) -> None:
        whole(self, name, tensors)
        if name == result:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "keep", keep)
    with pytest.raises(KeyboardInterrupt):
        train_mrhash(sources, QUICK, checkpoint=tmp_path)
    monkeypatch.undo()
    resumed = train_mrhash(sources, QUICK, checkpoint=tmp_path)
    assert_equal(resumed, train_mrhash(sources, QUICK))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    sources = make_places(120)[:2]
    train_mrhash(sources, QUICK, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="bits was 8 and is 16"):
        train_mrhash(sources, replace(QUICK, bits=16), checkpoint=tmp_path)


@pytest.mark.parametrize("gap", ["alone", "partly", "never"])
def test_it_trains_with_one_source_and_with_gaps_in_the_second(gap: str) -> None:
    primary, secondary, _ = make_places(120)
    secondary[: 60 if gap == "partly" else 0] = np.nan
    sources = [primary] if gap == "alone" else [primary, secondary]
    assert len(np.unique(train_mrhash(sources, QUICK).encode_features(primary))) > 1


def test_more_tiles_than_the_graph_takes_follow_its_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    primary, secondary, labels = make_places()
    monkeypatch.setattr("rshash.mrhash.REFERENCE_TILES", 150)
    monkeypatch.setattr("rshash.sources.BLOCK_ROWS", 64)
    told: list[Progress] = []
    training = train_mrhash([primary[60:], secondary[60:]], SMALL, progress=told.append)
    parts = [step for step in told if step.stage == "neighbours"]
    assert [step.epoch for step in parts] == list(range(1, parts[0].epochs + 1))
    assert parts[0].epochs == -(-(len(primary) - 60) // 64)
    words = training.encode_features(primary)
    assert mean_average_precision(words[:60], labels[:60], words[60:], labels[60:]) > 0.75


def test_training_stops_early_where_held_out_tiles_gain_nothing() -> None:
    sources = make_places()[:2]
    settings = replace(SMALL, hashing_epochs=200, patience=3)
    losses = train_mrhash(sources, settings).losses["hashing"]
    assert 4 <= len(losses) < 200


def test_batches_are_as_large_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = make_places(200)[:2]
    seen, whole = set(), Hashing.loss

    def loss(self: Hashing, arrays: list[torch.Tensor], *others: torch.Tensor) -> torch.Tensor:
        seen.add(len(arrays[0]))
        return whole(self, arrays, *others)

    monkeypatch.setattr(Hashing, "loss", loss)
    assert train_mrhash(sources, replace(QUICK, batch_size=100)).settings.batch_size == 100
    assert seen == {100}
    seen.clear()
    assert train_mrhash(sources, replace(QUICK, batch_size=None)).settings.batch_size == 32
    # Seven batches, as even as can be.
    assert seen == {28, 29}


def test_tiles_of_the_graph_keep_their_own_latent_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    primary, secondary, _ = make_places()
    kept: dict[str, torch.Tensor] = {}
    whole = _Stages._extended

    def extended(self: _Stages, references: Directions, latent: torch.Tensor) -> torch.Tensor:
        kept["own"], kept["all"] = latent, whole(self, references, latent)
        kept["rows"] = torch.from_numpy(self._references)
        return kept["all"]

    monkeypatch.setattr("rshash.mrhash.REFERENCE_TILES", 150)
    monkeypatch.setattr(_Stages, "_extended", extended)
    train_mrhash([primary, secondary], QUICK)
    assert len(kept["rows"]) == 150 < len(kept["all"])
    assert torch.equal(kept["all"][kept["rows"]], kept["own"])


def test_held_out_tiles_leave_no_batch_empty() -> None:
    sources = make_places(200)[:2]
    settings = replace(QUICK, batch_size=2, hashing_epochs=3, patience=3)
    assert np.isfinite(train_mrhash(sources, settings).losses["hashing"]).all()


def test_held_out_tiles_are_not_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = make_places(200)[:2]
    seen, whole = [], Hashing.loss

    def loss(self: Hashing, arrays: list[torch.Tensor], *others: torch.Tensor) -> torch.Tensor:
        seen.append(len(arrays[0]))
        return whole(self, arrays, *others)

    monkeypatch.setattr(Hashing, "loss", loss)
    train_mrhash(sources, replace(QUICK, hashing_epochs=3, patience=3))
    assert sum(seen) == 3 * 180


def test_of_few_tiles_one_is_held_out() -> None:
    source = make_places(9, classes=2)[0]
    training = train_mrhash([source], replace(QUICK, clusters=2, patience=1))
    assert training.encode_features(source).shape == (9, 1)


def test_codes_are_learned_from_pixels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(4, size=160)
    tiles = random.normal(0.1, 0.01, (160, 2, 12, 12)).astype(np.float32)
    tiles[labels % 2 == 1, :, ::2] += 0.1
    tiles[labels >= 2, 1] += 0.1
    spec = {"kind": "mosaiks", "bands": ["red", "nir"], "features": 16}
    extractor = make_extractor(spec)
    pixels = TilePixels(tiles.reshape(160, -1), tiles.shape[1:], extractor)
    settings = replace(QUICK, hashing_epochs=8, components=3)
    tuned = train_mrhash([extractor(tiles)], settings, pixels=pixels)
    assert tuned.extractor is not None
    assert tuned.extractor.id != extractor.id
    build_model(tuned, tuned.extractor, primary_sensor="landsat-c2-l2", tile_size=360).save(
        tmp_path
    )
    saved = Model.load(tmp_path)
    np.testing.assert_array_equal(
        saved.encode(tiles), tuned.encode_features(tuned.extractor(tiles))
    )
    frozen = train_mrhash([extractor(tiles)], replace(settings, backbone_rate=0), pixels=pixels)
    assert frozen.extractor is None
    for training, used in ((tuned, tuned.extractor), (frozen, extractor)):
        words = training.encode_features(used(tiles))
        assert mean_average_precision(words[:40], labels[:40], words[40:], labels[40:]) > 0.7
    with pytest.raises(TrainingError, match="Pixels of 159 tiles"):
        train_mrhash([extractor(tiles)[1:]], settings, pixels=pixels)


def test_pixels_that_do_not_give_the_features_are_refused() -> None:
    random = np.random.default_rng(0)
    tiles = random.uniform(0, 0.4, (80, 2, 1, 1)) + random.normal(0, 0.02, (80, 2, 8, 8))
    tiles = tiles.astype(np.float32)
    bands = ["red", "nir"]
    extractor = make_extractor({"kind": "mosaiks", "bands": bands, "features": 16})
    features = extractor(tiles)

    def pixels(chosen: np.ndarray, number: int = 16, seed: int = 1) -> TilePixels:
        spec = {"kind": "mosaiks", "bands": bands, "features": number, "seed": seed}
        return TilePixels(chosen.reshape(80, -1), (2, 8, 8), make_extractor(spec))

    pixels(tiles).check(features.astype(np.float16))
    gapped = np.where(np.arange(8) < 3, np.float32(np.nan), tiles)
    pixels(gapped).check(extractor(gapped))
    with pytest.raises(TrainingError, match="features of length 8, but found features of length 1"):
        train_mrhash([features], QUICK, pixels=pixels(tiles, number=8))
    other_features = "makes other features of the pixels than those given, first in row"
    with pytest.raises(TrainingError, match=other_features):
        train_mrhash([features], QUICK, pixels=pixels(tiles, seed=2))
    with pytest.raises(TrainingError, match=other_features):
        train_mrhash([features], QUICK, pixels=pixels(tiles[random.permutation(80)]))
    tiles[[7, 50], 1] = np.nan
    with pytest.raises(TrainingError, match=r"2 of 80 tiles hold no data in some band.* row 7:"):
        train_mrhash([features], QUICK, pixels=pixels(tiles))


def test_held_out_tiles_that_do_not_fit_in_memory_are_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiles = np.random.default_rng(0).uniform(0, 0.4, (80, 2, 8, 8)).astype(np.float32)
    extractor = make_extractor({"kind": "mosaiks", "bands": ["red", "nir"], "features": 16})
    pixels = TilePixels(tiles.reshape(80, -1), tiles.shape[1:], extractor)
    settings = replace(QUICK, patience=2)
    kept = train_mrhash([extractor(tiles)], settings, pixels=pixels)
    double = TilePixels(pixels.rows.astype(float), tiles.shape[1:], extractor)
    assert_equal(train_mrhash([extractor(tiles)], settings, pixels=double), kept)
    monkeypatch.setattr("rshash.probe.POOL_BYTES", 0)
    assert_equal(train_mrhash([extractor(tiles)], settings, pixels=pixels), kept)


def test_training_sets_that_cannot_work_are_refused_at_once() -> None:
    primary, secondary, _ = make_places(120)
    with pytest.raises(TrainingError, match=r"120 tiles are too few for 64 clusters.* 128 tiles"):
        resolved_settings(120, MrHashSettings(clusters=64))
    with pytest.raises(TrainingError, match="at most 60 clusters"):
        train_mrhash([primary, secondary], MrHashSettings(clusters=64))
    with pytest.raises(TrainingError, match=r"23 tiles are too few to learn from.* at least 24"):
        resolved_settings(23, MrHashSettings())
    for n_tiles, clusters in ((24, 4), (120, 20), (10_000, 128)):
        assert resolved_settings(n_tiles, MrHashSettings()).clusters == clusters
    with pytest.raises(TrainingError, match=r"train on at least 128 tiles\.$"):
        resolved_settings(3, MrHashSettings(clusters=64))
    with pytest.raises(
        TrainingError, match="clusters is None or a whole number of at least 2, but found 1"
    ):
        resolved_settings(120, MrHashSettings(clusters=1))
    with pytest.raises(CodeError, match="12 bits"):
        resolved_settings(1000, MrHashSettings(bits=12))
    with pytest.raises(TrainingError, match="same tiles"):
        train_mrhash([primary, secondary[1:]], SMALL)
    with pytest.raises(TrainingError, match="At least one source"):
        train_mrhash([], SMALL)
    primary[5] = np.nan
    with pytest.raises(
        TrainingError,
        match="1 of 120 tiles lack features of the primary source, the first in row 5",
    ):
        train_mrhash([primary, secondary], SMALL)


def test_features_that_nothing_can_be_learned_from_are_refused() -> None:
    primary, secondary, _ = make_places(120)
    with pytest.raises(FeatureError, match="same features"):
        train_mrhash([primary, np.ones_like(secondary)], QUICK)
    secondary[7, 3] = np.inf
    with pytest.raises(FeatureError, match="row 7"):
        train_mrhash([primary, secondary], QUICK)
    few = np.repeat(primary[:3], 40, axis=0)
    with pytest.raises(TrainingError, match=r"only 3 different features.* at most 3 clusters"):
        train_mrhash([few], QUICK)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"latent_space": "pca"}, "latent_space is neighbours or autoencoder, but found 'pca'"),
        ({"schedule": "linear"}, "schedule is cosine or steps"),
        ({"latent": 0}, "latent is a whole number of at least 1, but found 0"),
        ({"sharpening": 0.0}, "sharpening is a finite number above 0"),
        ({"autoencoder_epochs": 0}, "autoencoder_epochs is a whole number of at least 1"),
        ({"hashing_epochs": 0}, "hashing_epochs is a whole number of at least 1"),
        ({"batch_size": 1}, "batch_size is None or a whole number of at least 2, but found 1"),
        ({"batch_size": 32.5}, r"batch_size is None or a whole number .* found 32\.5"),
        ({"learning_rate": 0.0}, r"learning_rate is a finite number above 0, but found 0\.0"),
        ({"learning_rate": float("nan")}, "learning_rate is a finite number .* found nan"),
        ({"learning_rate": float("inf")}, "learning_rate is a finite number .* found inf"),
        ({"backbone_rate": -0.1}, "backbone_rate is a finite number of at least 0"),
        ({"reconstruction_weight": -1.0}, "reconstruction_weight is a finite number of at least"),
        ({"similarity_weight": -1.0}, "similarity_weight is a finite number of at least 0"),
        ({"hidden": -1}, "hidden is a whole number of at least 0, but found -1"),
        ({"dropout": 1.0}, r"dropout is a number from 0 to below 1, but found 1\.0"),
        ({"dropout": -0.1}, "dropout is a number from 0 to below 1"),
        ({"patience": 0}, "patience is None or a whole number of at least 1"),
        ({"seed": -1}, "seed is a whole number from 0 to 2.*64 - 1, but found -1"),
        ({"seed": 1 << 64}, "seed is a whole number .* found 18446744073709551616"),
        ({"seed": True}, "seed is a whole number .* found True"),
        ({"components": 0}, "components is None or a whole number of at least 1"),
        ({"components": (4, 0)}, r"components is .* or a tuple of those, but found \(4, 0\)"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(setting: dict, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        resolved_settings(100, replace(QUICK, **setting))


def test_the_largest_seed_trains() -> None:
    training = train_mrhash([make_places(40)[0]], replace(QUICK, seed=(1 << 64) - 1))
    assert np.isfinite(training.losses["hashing"]).all()


def test_every_source_has_components_of_its_own(tmp_path: Path) -> None:
    primary, secondary, _ = make_places(120)
    settings = replace(QUICK, components=(None, np.int64(5)))
    found = train_mrhash([primary, secondary], settings, checkpoint=tmp_path)
    assert found.scaling.projection is None
    centred = train_mrhash([primary, secondary], QUICK)
    assert np.abs(found.probabilities - centred.probabilities).max() > 0.01
    both = train_mrhash([primary, secondary], replace(QUICK, components=(5, 5)))
    assert_equal(both, train_mrhash([primary, secondary], replace(QUICK, components=5)))
    assert both.scaling.projection.shape == (24, 5)
    assert json.loads(json.dumps(asdict(found.settings)))["components"] == [None, 5]
    assert_equal(train_mrhash([primary, secondary], settings, checkpoint=tmp_path), found)
    with pytest.raises(CheckpointError, match="components was"):
        train_mrhash([primary, secondary], replace(QUICK, components=5), checkpoint=tmp_path)
    with pytest.raises(TrainingError, match="components are of 2 sources, but there are 1:"):
        train_mrhash([primary], settings)
    with pytest.raises(FeatureError, match=r"Source 2 of 2: .* length 32 .* but 33 are asked for"):
        train_mrhash([primary, secondary], replace(QUICK, components=(None, 33)))


def test_a_source_that_cannot_be_used_is_named() -> None:
    primary, secondary, _ = make_places(120)
    with pytest.raises(FeatureError, match=r"Source 2 of 2: None of 120 tiles has features"):
        train_mrhash([primary, np.full_like(secondary, np.nan)], QUICK)
    with pytest.raises(FeatureError, match=r"shape \(n, d\), but found the shapes \[\(120,\)\]"):
        train_mrhash([primary[:, 0]], QUICK)
