"""The factorised objective against the dense textbook form, with the n x n similarity matrix."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rshash import similarity
from rshash.codes import pack, unpack
from rshash.errors import CodeError, LabelError
from rshash.similarity import LabelSets, SimilarityLoss, sum_codes, update_codes


def dense_similarity(labels: np.ndarray) -> np.ndarray:
    shared = labels.astype(int) @ labels.T.astype(int) > 0
    return np.where(shared, 1.0, -shared.sum() / (~shared).sum())


def dense_loss(
    outputs: torch.Tensor, signs: np.ndarray, labels: np.ndarray, batch: np.ndarray, weight: float
) -> torch.Tensor:
    n, bits = signs.shape
    v = torch.from_numpy(signs.astype(np.float64))
    target = bits * torch.from_numpy(dense_similarity(labels)[batch])
    u = outputs.double()
    fit = (u @ v.T - target).square().sum()
    return (fit + weight * (v[batch] - u).square().sum()) / (n * len(batch))


def dense_update(
    signs: np.ndarray, labels: np.ndarray, sampled: np.ndarray, u: np.ndarray, weight: float
) -> np.ndarray:
    v, bits = signs.astype(np.float64), signs.shape[1]
    u_bar = np.zeros_like(v)
    u_bar[sampled] = u
    q = -2 * bits * dense_similarity(labels)[sampled].T @ u - 2 * weight * u_bar
    for k in range(bits):
        rest = np.arange(bits) != k
        decided = q[:, k] + 2 * v[:, rest] @ u[:, rest].T @ u[:, k]
        v[:, k] = np.where(-decided >= 0, 1, -1)
    return v.astype(np.int8)


@st.composite
def databases(draw: st.DrawFn) -> tuple[np.ndarray, np.random.Generator]:
    """Labels, single or multiple, that do not all overlap."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    tiles, classes = draw(st.integers(4, 40)), draw(st.sampled_from([2, 3, 5, 70]))
    if draw(st.booleans()):
        labels = np.eye(classes, dtype=bool)[random.integers(classes, size=tiles)]
    else:
        labels = random.random((tiles, classes)) < draw(st.sampled_from([0.1, 0.4]))
        labels[np.arange(tiles), random.integers(classes, size=tiles)] = True
    labels[:2] = np.eye(classes, dtype=bool)[:2]
    return labels, random


@given(databases(), st.sampled_from([8, 16, 72]), st.sampled_from([0.0, 200.0]))
@settings(max_examples=60, deadline=None)
def test_loss_and_gradient_are_those_of_the_dense_form(
    database: tuple[np.ndarray, np.random.Generator], bits: int, weight: float
) -> None:
    labels, random = database
    n = len(labels)
    codes = pack(random.standard_normal((n, bits)))
    sampled = random.permutation(n)[: max(2, n // 2)]
    sets = LabelSets.of(labels)
    loss = SimilarityLoss(codes, bits, sets, sum_codes(codes, bits, sets), sampled, weight)
    batch = random.integers(len(sampled), size=3)
    outputs = torch.tanh(torch.from_numpy(random.standard_normal((3, bits)))).requires_grad_()
    found = loss(outputs, torch.from_numpy(batch))
    expected = dense_loss(outputs, unpack(codes, bits), labels, sampled[batch], weight)
    assert found.item() == pytest.approx(expected.item(), rel=1e-10, abs=1e-9)
    [gradient] = torch.autograd.grad(found, outputs)
    [expected_gradient] = torch.autograd.grad(expected, outputs)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-9, atol=1e-9)


@given(databases(), st.sampled_from([8, 16, 72]), st.sampled_from([0.0, 0.5, 200.0]))
@settings(max_examples=60, deadline=None)
def test_updated_codes_are_those_of_the_dense_form(
    database: tuple[np.ndarray, np.random.Generator], bits: int, weight: float
) -> None:
    labels, random = database
    n = len(labels)
    # Few distinct codes, so that rows share their update.
    codes = pack(random.standard_normal((3, bits)))[random.integers(3, size=n)]
    sampled = random.permutation(n)[: max(1, n // 3)]
    outputs = np.tanh(random.standard_normal((len(sampled), bits)))
    expected = dense_update(unpack(codes, bits), labels, sampled, outputs, weight)
    update_codes(codes, bits, LabelSets.of(labels), sampled, outputs, weight)
    np.testing.assert_array_equal(unpack(codes, bits), expected)


def test_bits_that_nothing_decides_become_one_as_in_the_dense_form() -> None:
    labels = np.eye(2, dtype=bool)[[0, 1, 0, 1]]
    # Two classes of one size, so r is 1, and outputs that are whole numbers: sums are exact.
    outputs = np.zeros((2, 8))
    outputs[0, :4], outputs[1, 2:6] = 1, 1
    sampled = np.array([0, 2])
    codes = pack(-np.ones((4, 8)))
    expected = dense_update(unpack(codes, 8), labels, sampled, outputs, 1.0)
    update_codes(codes, 8, LabelSets.of(labels), sampled, outputs, 1.0)
    np.testing.assert_array_equal(unpack(codes, 8), expected)
    assert (unpack(codes, 8)[:, 6:] == 1).all()


def test_similarity_sums_to_zero_over_all_pairs() -> None:
    random = np.random.default_rng(0)
    labels = random.random((50, 6)) < 0.3
    labels[~labels.any(axis=1), 0] = True
    sets = LabelSets.of(labels)
    every = np.arange(len(sets.sets))
    counts = sets.counts[:, None].astype(float)
    total = sets.counts @ sets.weighted_similarity(every, every, counts)
    assert total.item() == pytest.approx(0, abs=1e-9)
    np.testing.assert_array_equal(sets.sets[sets.of_tile], labels)
    assert sets.counts.sum() == 50


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    labels = np.eye(4, dtype=bool)[random.integers(4, size=100)]
    codes = pack(random.standard_normal((5, 16)))[random.integers(5, size=100)]
    sampled, outputs = np.arange(7, 27), np.tanh(random.standard_normal((20, 16)))

    def result() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sets, updated = LabelSets.of(labels), codes.copy()
        update_codes(updated, 16, sets, sampled, outputs, 3.0)
        sums = sum_codes(updated, 16, sets)
        return updated, sums.gram, sums.by_set

    whole = result()
    monkeypatch.setattr(similarity, "_ROWS", 7)
    monkeypatch.setattr(similarity, "_BLOCK_ELEMENTS", 5)
    for found, expected in zip(result(), whole, strict=True):
        np.testing.assert_array_equal(found, expected)
    signs = unpack(whole[0], 16).astype(int)
    np.testing.assert_array_equal(whole[1], signs.T @ signs)
    by_set = [signs[(labels == one).all(axis=1)].sum(axis=0) for one in LabelSets.of(labels).sets]
    np.testing.assert_array_equal(whole[2], by_set)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones((4, 1), bool), "All 4 tiles share a label"),
        (np.array([[1, 0, 1], [0, 1, 1]], bool), "All 2 tiles share a label"),
        (np.array([[1, 0], [0, 0], [0, 1]], bool), "1 of 3 tiles have no label"),
        (np.ones((0, 2), bool), "0 of 0 tiles"),
    ],
)
def test_labels_that_tell_nothing_apart_are_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        LabelSets.of(labels)


def test_codes_of_another_length_are_refused() -> None:
    sets = LabelSets.of(np.eye(2, dtype=bool))
    codes = np.zeros((2, 1), np.uint64)
    with pytest.raises(CodeError, match="Codes of 72 bits"):
        sum_codes(codes, 72, sets)
    with pytest.raises(CodeError, match="Codes of 72 bits"):
        update_codes(codes, 72, sets, np.array([0]), np.zeros((1, 72)), 1.0)
