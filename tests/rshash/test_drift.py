from dataclasses import dataclass

import numpy as np
import pytest
import torch

from rshash.drift import DriftLimits, measure_drift, measure_reference
from rshash.hasher import FeatureHasher
from rshash.head import HashHead
from rshash.quality import failures
from rshash.scaling import FeatureScaling

DIMENSIONS = 24


@dataclass
class Hasher(FeatureHasher):
    head: HashHead
    scaling: FeatureScaling


def features(n: int, seed: int) -> np.ndarray:
    """Features of a landscape of six kinds of ground."""
    centres = np.random.default_rng(7).normal(size=(6, DIMENSIONS))
    random = np.random.default_rng(seed)
    kinds = centres[random.integers(0, 6, n)]
    return (kinds + 0.4 * random.normal(size=kinds.shape)).astype(np.float32)


@pytest.fixture(scope="module", params=[None, 8], ids=["centred", "whitened"])
def hasher(request) -> Hasher:
    scaling = FeatureScaling.fit(features(400, 0), request.param)
    torch.manual_seed(0)
    return Hasher(HashHead(scaling.dimensions, 32, hidden=0).eval(), scaling)


def failed(hasher: Hasher, found: np.ndarray, limits: DriftLimits = DriftLimits()) -> str:  # noqa: B008
    reference = measure_reference(hasher, features(200, 0))
    assert reference is not None and reference.tiles == len(found)
    return "; ".join(failures(measure_drift(hasher, found, reference, limits)))


def test_tiles_of_the_same_landscape_have_not_drifted(hasher: Hasher) -> None:
    for seed in range(1, 6):
        assert failed(hasher, features(200, seed)) == ""


def test_ground_that_was_never_seen_is_unfamiliar(hasher: Hasher) -> None:
    found = features(200, 1)
    found[:60] += 2
    assert "share of unfamiliar tiles 0." in failed(hasher, found)
    assert failed(hasher, found, DriftLimits(fall=1, unfamiliar=1)) == ""


def test_codes_that_tell_less_apart_than_they_did_are_found(hasher: Hasher) -> None:
    alike = np.repeat(features(5, 1), 40, axis=0)
    assert "distinct codes 5 over 200 tiles, expected at least" in failed(hasher, alike)


def test_of_few_tiles_nothing_is_said(hasher: Hasher) -> None:
    assert measure_reference(hasher, features(19, 0)) is None
