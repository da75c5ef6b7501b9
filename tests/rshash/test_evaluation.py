from collections.abc import Iterator
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rshash import rankings
from rshash.codes import hamming_distance, pack, unpack
from rshash.errors import CodeError, FeatureError, RshashError
from rshash.evaluation import (
    RankingQuality,
    distance_histogram,
    mean_average_precision,
    mean_average_precision_of_features,
    ranking_quality,
)
from rshash.rankings import AsymmetricRanking, CodeRanking, FeatureRanking, Ranking


def average_precision(relevant: np.ndarray, at: int | None) -> float:
    limit = len(relevant) if at is None else min(at, len(relevant))
    hits = np.cumsum(relevant)[:limit]
    precision = hits / np.arange(1, limit + 1)
    return float((precision * relevant[:limit]).sum() / min(limit, relevant.sum()))


def orders(distances: np.ndarray) -> Iterator[list[int]]:
    """All orders of the tiles in which the distances do not fall."""
    for order in permutations(range(len(distances))):
        if (np.diff(distances[list(order)]) >= 0).all():
            yield list(order)


def over_all_orders(
    distances: np.ndarray, relevant: np.ndarray, ranks: tuple[int, ...], at: int
) -> list[np.ndarray]:
    """Average precision, the same at `at`, precision and recall at `ranks`: means over orders."""
    figures = []
    for order in orders(distances):
        ordered = relevant[order]
        hits = np.array([ordered[:rank].sum() for rank in ranks])
        seen = np.minimum(ranks, len(ordered))
        figures.append(
            np.r_[
                average_precision(ordered, None),
                average_precision(ordered, at),
                hits / seen,
                hits / relevant.sum(),
            ]
        )
    return np.split(np.mean(figures, axis=0), [1, 2, 2 + len(ranks)])


def rankings_of(random: np.random.Generator, q: int, n: int) -> dict[str, tuple[Ranking, list]]:
    """Rankings with many ties, and the distances that they stand for."""
    ones = random.integers(0, 4, (q, 1)), random.integers(0, 4, (n, 1))
    queries, database = (pack(np.where(np.arange(8) < one, 1, -1)) for one in ones)
    # Saturated outputs: several codes are equally far from them.
    outputs = random.choice([-1.0, -0.3, 0.3, 1.0], (q, 8)).astype(np.float32)
    angles = [np.column_stack([np.cos(one * 0.5), np.sin(one * 0.5)]) for one in ones]
    signs = unpack(database, 8)
    exact = np.round(outputs.astype(float) * 10) @ signs.T
    return {
        "codes": (CodeRanking(queries, database), hamming_distance(queries, database).astype(int)),
        "outputs": (AsymmetricRanking(outputs, database), -exact.astype(int)),
        "features": (FeatureRanking(*angles), np.abs(ones[0] - ones[1].T)),
    }


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 6),
    at=st.integers(1, 8),
    several=st.booleans(),
    leave_out=st.booleans(),
)
@pytest.mark.parametrize("kind", ["codes", "outputs", "features"])
def test_ties_count_as_the_mean_over_all_orders(
    kind: str, seed: int, n: int, at: int, several: bool, leave_out: bool
) -> None:
    random = np.random.default_rng(seed)
    ranking, distances = rankings_of(random, 3, n)[kind]
    if several:
        query_labels, labels = random.random((3, 3)) < 0.5, random.random((n, 3)) < 0.5
        shared = (query_labels[:, None] & labels[None]).any(axis=2)
    else:
        query_labels, labels = random.integers(0, 2, 3), random.integers(0, 2, n)
        shared = query_labels[:, None] == labels
    own = np.array([0, -1, n - 1]) if leave_out else np.full(3, -1)
    others = np.arange(n) != own[:, None]
    kept = [i for i in range(3) if (shared & others)[i].any()]
    arguments = (ranking, query_labels, labels)
    if not kept:
        with pytest.raises(RshashError, match="No query shares a label"):
            ranking_quality(*arguments, own_rows=own)
        return
    found = ranking_quality(*arguments, own_rows=own if leave_out else None, at=(at,))
    expected = [
        over_all_orders(distances[i, others[i]], shared[i, others[i]], found.ranks, at)
        for i in kept
    ]
    full, cut, precision, recall = (np.mean(one, axis=0) for one in zip(*expected, strict=True))
    assert found.queries == len(kept)
    assert found.mean_ap == pytest.approx(full[0])
    assert found.mean_ap_at == {at: pytest.approx(cut[0])}
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall, recall)


def figures(quality: RankingQuality) -> np.ndarray:
    return np.r_[quality.mean_ap, *quality.mean_ap_at.values(), quality.precision, quality.recall]


@pytest.fixture(scope="module")
def repeated() -> dict[str, np.ndarray]:
    """Tiles whose codes and features repeat, sorted by label."""
    random = np.random.default_rng(0)
    rows = random.integers(12, size=400)
    return {
        "codes": pack(random.normal(size=(12, 16)))[rows],
        "features": random.normal(size=(12, 30)).astype(np.float32)[rows],
        "outputs": np.tanh(random.normal(size=(400, 16))).astype(np.float32),
        "labels": np.sort(random.integers(5, size=400)),
    }


@pytest.mark.parametrize("kind", ["codes", "outputs", "features"])
def test_the_order_of_the_database_does_not_matter(
    kind: str, repeated: dict[str, np.ndarray]
) -> None:
    def measure(order: np.ndarray) -> np.ndarray:
        codes, features, labels = (repeated[k][order] for k in ("codes", "features", "labels"))
        ranking = {
            "codes": CodeRanking(repeated["codes"][::40], codes),
            "outputs": AsymmetricRanking(repeated["outputs"][::40], codes),
            "features": FeatureRanking(repeated["features"][::40], features),
        }[kind]
        return figures(ranking_quality(ranking, repeated["labels"][::40], labels))

    shuffled = np.random.default_rng(1).permutation(400)
    np.testing.assert_allclose(measure(np.arange(400)), measure(shuffled), rtol=1e-12)


def test_leaving_oneself_out_is_a_database_without_oneself(
    repeated: dict[str, np.ndarray],
) -> None:
    codes, labels = repeated["codes"], repeated["labels"]
    rows = np.array([3, 77, 399])
    found = ranking_quality(
        CodeRanking(codes[rows], codes), labels[rows], labels, own_rows=rows, at=(20,)
    )
    one_by_one = [
        mean_average_precision(
            codes[[row]], labels[[row]], np.delete(codes, row, axis=0), np.delete(labels, row)
        )
        for row in rows
    ]
    assert found.mean_ap == pytest.approx(np.mean(one_by_one))
    with pytest.raises(RshashError, match="own row"):
        ranking_quality(CodeRanking(codes[rows], codes), labels[rows], labels, own_rows=rows[:2])


def test_outputs_of_plus_and_minus_one_rank_as_their_codes() -> None:
    random = np.random.default_rng(0)
    codes, labels = pack(random.normal(size=(300, 72))), random.integers(4, size=300)
    symmetric = ranking_quality(CodeRanking(codes[:20], codes), labels[:20], labels)
    outputs = unpack(codes[:20], 72).astype(np.float32)
    asymmetric = ranking_quality(AsymmetricRanking(outputs, codes), labels[:20], labels)
    np.testing.assert_allclose(figures(asymmetric), figures(symmetric), rtol=1e-12)


@pytest.mark.parametrize("kind", ["codes", "outputs", "features"])
def test_blocks_and_several_labels_change_nothing(
    kind: str, repeated: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranking: Ranking = {
        "codes": CodeRanking(repeated["codes"][:9], repeated["codes"]),
        "outputs": AsymmetricRanking(repeated["outputs"][:9], repeated["codes"]),
        "features": FeatureRanking(repeated["features"][:9], repeated["features"]),
    }[kind]
    labels = repeated["labels"]
    one_hot = labels[:, None] == np.arange(5)
    expected = figures(ranking_quality(ranking, labels[:9], labels))
    of_one_hot = figures(ranking_quality(ranking, one_hot[:9], one_hot))
    np.testing.assert_array_equal(of_one_hot, expected)
    monkeypatch.setattr(rankings, "_BLOCK_ELEMENTS", 900)
    monkeypatch.setattr(rankings, "_SCORE_ELEMENTS", 2000)
    monkeypatch.setattr(rankings, "_ROWS_AT_ONCE", 50)
    np.testing.assert_allclose(figures(ranking_quality(ranking, labels[:9], labels)), expected)


def test_short_forms_give_the_same_figures(repeated: dict[str, np.ndarray]) -> None:
    labels = repeated["labels"]
    for key, ranking, short in (
        ("codes", CodeRanking, mean_average_precision),
        ("features", FeatureRanking, mean_average_precision_of_features),
    ):
        queries, database = repeated[key][:9], repeated[key]
        quality = ranking_quality(ranking(queries, database), labels[:9], labels)
        assert short(queries, labels[:9], database, labels) == quality.mean_ap
        assert short(queries, labels[:9], database, labels, at=20) == quality.mean_ap_at[20]


def test_the_curve_ends_at_the_whole_database(repeated: dict[str, np.ndarray]) -> None:
    labels, codes = repeated["labels"], repeated["codes"]
    found = ranking_quality(CodeRanking(codes[:50], codes), labels[:50], labels)
    assert (found.ranks[0], found.ranks[-1]) == (1, 400)
    assert found.recall[-1] == pytest.approx(1)
    assert (np.diff(found.recall) > 0).all()
    share = (labels[:50, None] == labels).mean()
    assert found.precision[-1] == pytest.approx(share)


def test_one_shared_label_is_enough() -> None:
    codes = pack(np.array([[1] * 8, [1] * 8, [-1] * 8]))
    labels = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]], bool)
    assert mean_average_precision(codes[:1], labels[:1], codes[1:], labels[1:]) == 1.0


def test_queries_without_anything_relevant_take_no_part() -> None:
    codes = pack(np.array([[1] * 8, [-1] * 8]))
    found = ranking_quality(CodeRanking(codes, codes), np.array([0, 7]), np.array([0, 0]))
    assert (found.queries, found.mean_ap) == (1, 1.0)
    with pytest.raises(RshashError, match="No query shares a label"):
        mean_average_precision(codes, np.array([7, 7]), codes, np.array([0, 0]))
    with pytest.raises(RshashError, match="needs its label"):
        mean_average_precision(codes, np.array([7]), codes, np.array([0, 0]))


def test_what_cannot_be_compared_is_refused() -> None:
    codes = pack(np.ones((3, 72)))
    with pytest.raises(CodeError, match="different models"):
        AsymmetricRanking(np.ones((2, 64)), codes)
    with pytest.raises(FeatureError, match="one length"):
        FeatureRanking(np.ones((2, 3)), np.ones((2, 4)))


def test_labels_and_ranks_that_mean_nothing_are_refused() -> None:
    codes = pack(np.array([[1] * 8, [-1] * 8]))
    labels = np.array([0, 1])
    for wrong, found in (([0, 1], "list"), (np.array(["a", "b"]), "<U1"), (labels * 0.5, "float")):
        for both in ((wrong, labels), (labels, wrong)):
            with pytest.raises(RshashError, match=f"Labels are numpy arrays.* found {found}"):
                mean_average_precision(codes, both[0], codes, both[1])
    with pytest.raises(RshashError, match="0 database tiles"):
        mean_average_precision(codes, labels, codes[:0], labels[:0])
    alone = CodeRanking(codes[:1], codes[:1])
    with pytest.raises(RshashError, match="at least two are needed"):
        ranking_quality(alone, labels[:1], labels[:1], own_rows=np.array([0]))
    for at in (0, -1):
        with pytest.raises(RshashError, match=rf"first rank or more, but found at \[{at}\]"):
            mean_average_precision(codes, labels, codes, labels, at=at)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_has_no_place_in_an_order_is_refused(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rankings, "_BLOCK_ELEMENTS", 16)
    whole = np.random.default_rng(0).normal(size=(7, 8))
    holed = whole.copy()
    holed[[3, 5], 1] = value
    expected = "are not finite in 2 of 7 rows, the first is row 3"
    with pytest.raises(FeatureError, match=f"features of the database {expected}"):
        FeatureRanking(whole, holed)
    with pytest.raises(FeatureError, match=f"features of the queries {expected}"):
        FeatureRanking(holed, whole)
    with pytest.raises(FeatureError, match=f"network outputs of the queries {expected}"):
        AsymmetricRanking(holed, pack(whole))


def test_the_histogram_counts_every_pair_once(repeated: dict[str, np.ndarray]) -> None:
    codes, labels, rows = repeated["codes"], repeated["labels"], np.arange(0, 400, 40)
    found = distance_histogram(CodeRanking(codes[rows], codes), labels[rows], labels, own_rows=rows)
    distances = hamming_distance(codes[rows], codes)
    other = np.arange(400) != rows[:, None]
    same = labels[rows, None] == labels
    for counts, pairs in ((found.relevant, same & other), (found.irrelevant, ~same)):
        np.testing.assert_array_equal(counts, np.bincount(distances[pairs], minlength=65))
