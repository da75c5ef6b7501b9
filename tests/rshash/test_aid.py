"""Figures on real images; they need the AID features, which the project does not hold."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

from rshash.baselines import fit_itq, fit_sign_of_dimensions
from rshash.codes import Words
from rshash.evaluation import mean_average_precision, mean_average_precision_of_features
from rshash.scaling import FeatureScaling

FOLDER = Path(__file__).parents[2].parent / "shared" / "data" / "aid"

pytestmark = pytest.mark.skipif(
    not (FOLDER / "aid-features.npz").is_file(),
    reason="the AID features are not at ../shared/data/aid beside the checkout",
)


class Split(NamedTuple):
    query: np.ndarray
    query_labels: np.ndarray
    database: np.ndarray
    database_labels: np.ndarray

    def score(self, query_codes: Words, database_codes: Words, at: int | None = None) -> float:
        return mean_average_precision(
            query_codes, self.query_labels, database_codes, self.database_labels, at
        )


@pytest.fixture(scope="module")
def coarse() -> Split:
    table = pq.read_table(FOLDER / "aid-images-96px.parquet", columns=["label", "split"])
    labels = table["label"].to_numpy().astype(int)
    query = np.array(table["split"].to_pylist()) == "query"
    stored = np.load(FOLDER / "aid-features.npz")
    features = (stored["coarse"] * stored["coarse_scale"]).astype(np.float32)
    scaled = FeatureScaling.fit(features[~query]).apply(features)
    return Split(scaled[query], labels[query], scaled[~query], labels[~query])


@pytest.mark.parametrize(("at", "expected"), [(None, 0.335), (20, 0.571)])
def test_the_convention_gives_the_known_figures_of_float_features(
    coarse: Split, at: int | None, expected: float
) -> None:
    found = mean_average_precision_of_features(*coarse, at=at)
    assert found == pytest.approx(expected, abs=0.001)


def test_baselines_reach_their_known_figures(coarse: Split) -> None:
    signs = fit_sign_of_dimensions(coarse.database)
    found = coarse.score(signs.encode(coarse.query), signs.encode(coarse.database))
    assert found == pytest.approx(0.277, abs=0.002)
    itq = fit_itq(coarse.database, 64)
    query_codes, database_codes = itq.encode(coarse.query), itq.encode(coarse.database)
    assert coarse.score(query_codes, database_codes) == pytest.approx(0.312, abs=0.02)
    assert coarse.score(query_codes, database_codes, at=20) == pytest.approx(0.474, abs=0.02)
