import json
from pathlib import Path

import numpy as np
import pytest

from rshash.baselines import fit_baselines
from rshash.comparison import ComparedModel, Comparison, compare
from rshash.errors import RshashError
from rshash.report import CodedTiles

N, CLASSES = 120, 6
RANDOM = np.random.default_rng(0)
LABELS = np.arange(N) % CLASSES
FEATURES = (3 * np.eye(CLASSES, 16)[LABELS] + RANDOM.normal(size=(N, 16))).astype(np.float32)
GOOD = fit_baselines(FEATURES, 16)["LSH"].encode(FEATURES)
POOR = np.uint64(1 << 63) * RANDOM.integers(0, 2, (N, 1)).astype(np.uint64)


def side(name: str, codes, bits: int = 16, labels=LABELS, features: str = "f") -> ComparedModel:
    return ComparedModel(name, bits, features, CodedTiles(codes, labels, FEATURES))


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compare(side("new", GOOD), side("old", POOR))


def test_the_better_one_is_named_by_each_measure(found: Comparison) -> None:
    better = {one.name: one.better for one in found.measures}
    assert better == {
        "mean AP by labels": "candidate",
        "mean AP at 20": "candidate",
        "mean AP at 100": "candidate",
        "agreement with features": "candidate",
        "distinct codes": "candidate",
        "bit balance": "candidate",
        # Of constant bits nothing is correlated, and less is better.
        "bit correlation": "other",
    }
    first, second = found.verdict.split("old is better by")
    assert (
        first.startswith("new is better by mean AP by labels (0.") and "bit correlation" in second
    )


def test_each_is_first_where_it_is_the_candidate(found: Comparison) -> None:
    turned = compare(side("old", POOR), side("new", GOOD))
    assert [(one.candidate, one.other) for one in turned.measures] == [
        (one.other, one.candidate) for one in found.measures
    ]


def test_equal_codes_are_equal() -> None:
    same = compare(side("new", GOOD, labels=None), side("old", GOOD, labels=None))
    assert {one.better for one in same.measures} == {"equal"}
    assert same.verdict.startswith("Equal, to within 2%: agreement with features")


def test_models_of_other_features_and_lengths_are_measured_by_both() -> None:
    long = fit_baselines(FEATURES, 24)["LSH"].encode(FEATURES)
    found = compare(side("new", long, 24, features="a"), side("old", GOOD, features="b"))
    names = [one.name for one in found.measures if "agreement" in one.name]
    assert names == ["agreement with features a", "agreement with features b"]


def test_a_report_shows_both(found: Comparison, tmp_path: Path) -> None:
    files = found.save(tmp_path / "report", "Do this next.")
    assert {file.name for file in files} == {
        "report.json",
        "report.md",
        "precision_recall.png",
        "bit_balance.png",
        "distances.png",
    }
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.startswith("# new beside old\n\nnew is better by") and "Do this next." in text
    assert "float cosine" in text and "| new" in text and "| old" in text
    figures = json.loads((tmp_path / "report" / "report.json").read_text())
    assert figures["measures"][0]["better"] == "candidate"
    assert set(figures["side_by_side"]["statistics"]) == {"new", "old"}


def test_other_tiles_are_refused() -> None:
    fewer = ComparedModel("old", 16, "f", CodedTiles(GOOD[:9], LABELS[:9], FEATURES[:9]))
    with pytest.raises(RshashError, match="same tiles, at least 11, but found 120 and 9"):
        compare(side("new", GOOD), fewer)
