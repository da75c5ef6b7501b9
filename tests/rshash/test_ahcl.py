import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rshash import ahcl
from rshash.ahcl import AhclSettings, AhclTraining, check_labelled_tiles, train_ahcl
from rshash.codes import hamming_distance, pack, unpack
from rshash.errors import (
    CheckpointError,
    CodeError,
    FeatureError,
    LabelError,
    RshashError,
    TrainingError,
)
from rshash.labels import TileLabels
from rshash.progress import Progress
from rshash.streaming import FeatureFile

SETTINGS = AhclSettings(
    bits=16, sampled=60, iterations=4, batch_size=20, hidden=32, learning_rate=0.01
)
CLASSES = ("forest", "town", "water")


def tiles(values: np.ndarray) -> TileLabels:
    names = tuple(f"tile-{row}" for row in range(len(values)))
    return TileLabels(names, CLASSES[: values.shape[1]], values)


def database(n: int = 150, *, multiple: bool = False) -> tuple[np.ndarray, TileLabels]:
    """Features that lie around their classes' centres, with labels."""
    random = np.random.default_rng(5)
    values = np.eye(3, dtype=bool)[random.integers(3, size=n)]
    if multiple:
        values |= np.eye(3, dtype=bool)[random.integers(3, size=n)]
    centres = 3 * random.standard_normal((3, 12))
    return (values @ centres + random.standard_normal((n, 12))).astype(np.float32), tiles(values)


def outputs(training: AhclTraining, features: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return training.head(torch.from_numpy(training.scaling.apply(features))).numpy()


def check_same(found: AhclTraining, expected: AhclTraining) -> None:
    np.testing.assert_array_equal(found.codes, expected.codes)
    assert found.losses == expected.losses
    for name, weights in expected.head.state_dict().items():
        assert torch.equal(found.head.state_dict()[name], weights)


@pytest.mark.parametrize("multiple", [False, True])
def test_codes_tell_label_sets_apart_and_the_network_follows_them(multiple: bool) -> None:
    features, labels = database(multiple=multiple)
    training = train_ahcl(features, labels, SETTINGS)
    assert training.codes.shape == (150, 1)
    assert training.classes == CLASSES
    assert training.losses["ahcl"][-1] < 0.95 * training.losses["ahcl"][0]
    shared = labels.values.astype(int) @ labels.values.T > 0
    distances = hamming_distance(training.codes, training.codes)
    assert distances[~shared].mean() > distances[shared].mean() + 5
    right = unpack(pack(outputs(training, features)), 16) == unpack(training.codes, 16)
    assert right.mean() > 0.8


def test_one_seed_gives_one_result_and_another_seed_another() -> None:
    features, labels = database()
    first = train_ahcl(features, labels, SETTINGS)
    torch.manual_seed(99)
    check_same(train_ahcl(features, labels, SETTINGS), first)
    other = train_ahcl(features, labels, dataclasses.replace(SETTINGS, seed=1))
    assert not np.array_equal(other.codes, first.codes)


def test_features_on_disk_train_as_those_in_memory(tmp_path: Path) -> None:
    features, labels = database()
    np.save(tmp_path / "features.npy", features)
    found = train_ahcl(FeatureFile.open(tmp_path / "features.npy"), labels, SETTINGS)
    check_same(found, train_ahcl(features, labels, SETTINGS))


class KilledError(Exception):
    pass


def test_an_ended_training_goes_on_to_what_an_uninterrupted_one_gives(tmp_path: Path) -> None:
    features, labels = database()
    seen = []

    def kill(progress: Progress) -> None:
        seen.append(progress)
        if progress.epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        train_ahcl(features, labels, SETTINGS, progress=kill, checkpoint=tmp_path)
    resumed = train_ahcl(features, labels, SETTINGS, progress=seen.append, checkpoint=tmp_path)
    assert [(step.stage, step.epoch, step.epochs) for step in seen] == [
        ("ahcl", epoch, 4) for epoch in (1, 2, 3, 4)
    ]
    check_same(resumed, train_ahcl(features, labels, SETTINGS))


def test_a_checkpoint_of_other_labels_is_refused(tmp_path: Path) -> None:
    features, labels = database()
    train_ahcl(features, labels, SETTINGS, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="labels was"):
        train_ahcl(features, tiles(~labels.values), SETTINGS, checkpoint=tmp_path)


def test_every_tile_is_sampled_where_there_are_few() -> None:
    features, labels = database(20)
    training = train_ahcl(features, labels, SETTINGS)
    assert training.codes.shape == (20, 1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"bits": 12}, CodeError, "12 bits"),
        ({"sampled": 1}, TrainingError, "sampled is a whole number of at least 2, but found 1"),
        ({"iterations": 0}, TrainingError, "iterations is a whole number of at least 1"),
        ({"batch_size": 1}, TrainingError, "batch_size is a whole number of at least 2"),
        ({"learning_rate": 0.0}, TrainingError, "learning_rate is a finite number above 0"),
        ({"learning_rate": float("inf")}, TrainingError, "learning_rate .* found inf"),
        ({"schedule": "linear"}, TrainingError, "schedule is cosine or steps, but found 'linear'"),
        ({"weight_decay": -1.0}, TrainingError, "weight_decay is a finite number of at least 0"),
        ({"quantisation_weight": -1.0}, TrainingError, "quantisation_weight is a finite number"),
        ({"classification_weight": -1.0}, TrainingError, "classification_weight is a finite"),
        ({"hidden": -1}, TrainingError, "hidden is a whole number of at least 0, but found -1"),
        ({"initial_scale": 0.0}, TrainingError, "initial_scale is a finite number above 0"),
        ({"dropout": 1.0}, TrainingError, r"dropout is a number from 0 to below 1, but found 1\.0"),
        (
            {"noise": -0.1},
            TrainingError,
            r"noise is a finite number of at least 0, but found -0\.1",
        ),
        ({"seed": -1}, TrainingError, "seed is a whole number from 0 to .* but found -1"),
        ({"components": 0}, TrainingError, "components is None or a whole number of at least 1"),
    ],
)
def test_bad_settings_are_refused(
    changes: dict[str, float], error: type[RshashError], message: str
) -> None:
    features, labels = database()
    with pytest.raises(error, match=message):
        train_ahcl(features, labels, dataclasses.replace(SETTINGS, **changes))


def test_settings_of_numpys_numbers_are_those_of_pythons(tmp_path: Path) -> None:
    features, labels = database(30)
    numbers = {"bits": np.int64(16), "seed": np.uint8(0), "learning_rate": np.float32(0.5)}
    settings = dataclasses.replace(SETTINGS, iterations=1, **numbers)
    training = train_ahcl(features, labels, settings, checkpoint=tmp_path)
    found = json.loads(json.dumps([dataclasses.asdict(training.settings), training.head.spec()]))
    assert found[0] == dataclasses.asdict(settings)
    assert found[1]["bits"] == 16


def test_labels_of_one_class_are_refused_by_name_of_the_reason() -> None:
    features, _ = database(6)
    values = np.zeros((6, 3), bool)
    values[:, 1] = True
    with pytest.raises(LabelError, match="of 1 class"):
        train_ahcl(features, tiles(values), SETTINGS)
    values[0, 0] = True
    with pytest.raises(LabelError, match="share a label with all others"):
        train_ahcl(features, tiles(values), SETTINGS)


def test_features_and_labels_of_different_numbers_of_tiles_are_refused() -> None:
    features, labels = database()
    with pytest.raises(LabelError, match="149 tiles and labels of 150"):
        train_ahcl(features[1:], labels, SETTINGS)
    with pytest.raises(FeatureError, match="found a list"):
        train_ahcl(features.tolist(), labels, SETTINGS)
    with pytest.raises(LabelError, match="149 tiles"):
        check_labelled_tiles(149, labels, SETTINGS)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.nan, TrainingError, "1 of 150 tiles lack features, the first in row"),
        (np.inf, FeatureError, "infinite"),
    ],
)
def test_features_that_are_not_finite_are_refused(
    value: float, error: type[RshashError], message: str
) -> None:
    features, labels = database()
    features[3, 4] = value
    with pytest.raises(error, match=message):
        train_ahcl(features, labels, SETTINGS)


def test_constant_features_are_refused() -> None:
    _, labels = database()
    with pytest.raises(FeatureError, match="same features"):
        train_ahcl(np.ones((150, 12), np.float32), labels, SETTINGS)


def test_published_settings_use_the_published_weights() -> None:
    settings = AhclSettings.paper(32, n_tiles=4000)
    assert settings.classification_weight * settings.bits**2 == 20.0
    assert settings.quantisation_weight * 4000 == 200.0
    assert ahcl.EPOCHS == 2
