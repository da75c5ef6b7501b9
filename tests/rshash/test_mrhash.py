import numpy as np
import pytest
import torch

from rshash.codes import pack
from rshash.errors import CodeError, TrainingError
from rshash.evaluation import mean_average_precision
from rshash.mrhash import MrHashSettings, check_training_set, train_mrhash
from rshash.progress import Progress

SMALL = MrHashSettings(
    bits=16, clusters=6, autoencoder_epochs=15, hashing_epochs=10, batch_size=32, hidden=64
)


def make_places(n: int = 360, classes: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of two sources of the same places, the first noisier, and the places' classes."""
    random = np.random.default_rng(0)
    labels = random.integers(classes, size=n)
    sources = []
    for dimensions, noise in ((24, 1.0), (32, 0.4)):
        centres = random.normal(size=(classes, dimensions))
        sources.append(centres[labels] + noise * random.normal(size=(n, dimensions)) + 3)
    return sources[0].astype(np.float32), sources[1].astype(np.float32), labels


def codes_of(training, features: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return pack(training.head(torch.from_numpy(training.scaling.apply(features))).numpy())


def test_codes_bring_like_places_together() -> None:
    primary, secondary, labels = make_places()
    steps: list[Progress] = []
    training = train_mrhash([primary[60:], secondary[60:]], SMALL, steps.append)
    words = codes_of(training, primary)
    precision = mean_average_precision(words[:60], labels[:60], words[60:], labels[60:])
    assert precision > 0.75
    assert [s.epoch for s in steps if s.stage == "autoencoder"] == list(range(1, 16))
    assert [s.epoch for s in steps if s.stage == "hashing"] == list(range(1, 11))
    assert training.losses["hashing"] == [s.loss for s in steps if s.stage == "hashing"]
    assert training.probabilities.shape == (300, 6)
    assert training.probabilities.dtype == np.float32
    np.testing.assert_allclose(training.probabilities.sum(axis=1), 1, rtol=1e-4)


def test_the_same_seed_gives_the_same_result_and_leaves_torchs_own_alone() -> None:
    primary, secondary, _ = make_places(120)
    settings = MrHashSettings(
        bits=16, clusters=4, autoencoder_epochs=2, hashing_epochs=2, hidden=16, seed=7
    )
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = train_mrhash([primary, secondary], settings)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again = train_mrhash([primary, secondary], settings)
    for a, b in zip(first.head.parameters(), again.head.parameters(), strict=True):
        assert torch.equal(a, b)
    np.testing.assert_array_equal(first.probabilities, again.probabilities)


@pytest.mark.parametrize("gap", ["alone", "partly", "never"])
def test_it_trains_with_one_source_and_with_gaps_in_the_second(gap: str) -> None:
    primary, secondary, _ = make_places(120)
    secondary[: 60 if gap == "partly" else 0] = np.nan
    sources = [primary] if gap == "alone" else [primary, secondary]
    settings = MrHashSettings(bits=8, clusters=4, autoencoder_epochs=2, hashing_epochs=2, hidden=16)
    assert len(np.unique(codes_of(train_mrhash(sources, settings), primary))) > 1


def test_training_sets_that_cannot_work_are_refused_at_once() -> None:
    primary, secondary, _ = make_places(120)
    with pytest.raises(TrainingError, match=r"120 tiles are too few for 64 clusters.* 128 tiles"):
        check_training_set(120, MrHashSettings())
    with pytest.raises(TrainingError, match="at most 60 clusters"):
        train_mrhash([primary, secondary])
    with pytest.raises(TrainingError, match=r"ingest at least 128 tiles\.$"):
        check_training_set(3, MrHashSettings())
    with pytest.raises(TrainingError, match="At least 2 clusters"):
        check_training_set(120, MrHashSettings(clusters=1))
    with pytest.raises(CodeError, match="12 bits"):
        check_training_set(1000, MrHashSettings(bits=12))
    with pytest.raises(TrainingError, match="same tiles"):
        train_mrhash([primary, secondary[1:]], SMALL)
    with pytest.raises(TrainingError, match="at least one source"):
        train_mrhash([], SMALL)
    primary[5] = np.nan
    with pytest.raises(TrainingError, match="1 of 120 tiles lack the primary"):
        train_mrhash([primary, secondary], SMALL)
