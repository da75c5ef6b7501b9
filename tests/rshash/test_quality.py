import numpy as np
import pytest

from rshash.codes import Words, pack
from rshash.quality import (
    FEWEST_TILES,
    Measure,
    Thresholds,
    failures,
    measure_codes,
    measure_features,
    measure_flips,
    measure_labels,
)

BITS = 64


def codes(tiles: int, distinct: int) -> Words:
    signs = np.random.default_rng(0).choice([-1, 1], (distinct, BITS))
    return pack(signs[np.arange(tiles) % distinct])


def names(measures: list[Measure]) -> list[str]:
    return [measure.name for measure in measures if not measure.passes]


@pytest.mark.parametrize(("tiles", "distinct"), [(100, 16), (8, 2), (1, 1)])
def test_codes_that_differ_pass(tiles: int, distinct: int) -> None:
    assert failures(measure_codes(codes(tiles, distinct), BITS, Thresholds(balance=0))) == []


@pytest.mark.parametrize(("tiles", "distinct"), [(100, 15), (100, 2), (8, 1)])
def test_collapsed_codes_fail(tiles: int, distinct: int) -> None:
    measures = measure_codes(codes(tiles, distinct), BITS, Thresholds(balance=0))
    assert names(measures) == ["distinct codes"]
    needed = min(16, tiles // 4)
    [said] = failures(measures)
    assert said == f"distinct codes {distinct} over {tiles} tiles, expected at least {needed}"


def test_bits_that_nearly_never_change_fail() -> None:
    signs = np.ones((100, BITS))
    signs[:, :6] = np.array(
        [[1 if tile >> bit & 1 else -1 for bit in range(6)] for tile in range(100)]
    )
    measures = measure_codes(pack(signs), BITS, Thresholds())
    assert names(measures) == ["bit balance"]
    [balance] = [one.value for one in measures if one.name == "bit balance"]
    rarer = [min((signs[:, bit] > 0).mean(), (signs[:, bit] < 0).mean()) for bit in range(6)]
    assert balance == pytest.approx(sum(rarer) / BITS)


def test_flips_are_a_share_of_the_bits() -> None:
    flips = np.full(FEWEST_TILES, 16)
    [measure] = measure_flips(flips, BITS, Thresholds(flips=0.25))
    assert measure.value == 0.25 and measure.passes
    flips[0] = 17
    assert names(measure_flips(flips, BITS, Thresholds(flips=0.25))) == ["flipped bits"]
    assert measure_flips(flips[1:], BITS, Thresholds(flips=0)) == []


def test_a_probe_compares_codes_to_features_and_labels() -> None:
    random = np.random.default_rng(0)
    classes = np.arange(60) % 4
    features = 5 * np.eye(4, 8)[classes] + random.normal(0, 0.1, (60, 8))
    good = pack(random.choice([-1, 1], (4, BITS))[classes])
    bad = codes(60, 60)
    thresholds = Thresholds(agreement=0.5, mean_ap=0.9)
    assert failures(measure_features(good, features, thresholds)) == []
    assert failures(measure_labels(good, classes, thresholds)) == []
    assert names(measure_features(bad, features, thresholds)) == ["agreement with features"]
    assert names(measure_labels(bad, classes, thresholds)) == ["MAP by land cover"]
    assert measure_features(good[:9], features[:9], thresholds) == []
    assert measure_labels(good[:9], classes[:9], thresholds) == []
