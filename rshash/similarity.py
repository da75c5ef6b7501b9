"""The similarity objective of AHCL over a whole database, exact and without its similarity matrix.

Song et al., TGRS 2022, doi:10.1109/TGRS.2022.3143571. S_ij is 1 where tiles i and j share a label
and -r elsewhere, r chosen so that S sums to zero. S has only as many distinct rows as there are
distinct label sets, so that sums over all n tiles need no more than a Gram matrix of the codes and
the sum of the codes of each label set: neither the loss nor the update of a code depends on n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rshash.codes import Words, check_words, pack, unpack
from rshash.errors import LabelError

_ROWS = 1 << 16
_BLOCK_ELEMENTS = 1 << 22
_CACHED_ELEMENTS = 1 << 16
_MIXER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class LabelSets:
    """The distinct label sets of a database, and which of them each tile has.

    Attributes:
        sets: bool (P, classes), distinct.
        of_tile: Row in `sets` of each tile, int32 (n,).
        counts: Number of tiles of each set, int64 (P,).
        dissimilarity: r: the similarity of two tiles without a common label is -r.
    """

    sets: NDArray[np.bool_]
    of_tile: NDArray[np.int32]
    counts: NDArray[np.int64]
    dissimilarity: float

    @classmethod
    def of(cls, labels: NDArray[np.bool_]) -> LabelSets:
        """Finds the distinct rows of labels, bool (n, classes).

        Raises:
            LabelError: A tile has no label, or all tiles share a label with all others.
        """
        unlabelled = len(labels) - int(np.count_nonzero(labels.any(axis=1)))
        if unlabelled or not len(labels):
            raise LabelError(
                f"{unlabelled} of {len(labels)} tiles have no label: leave them out of training."
            )
        first, of_tile, counts = _distinct(_columns(labels))
        sets = labels[first]
        similar = sum(
            int(counts[rows] @ (_share_label(sets[rows], sets) @ counts))
            for rows in _blocks(len(sets), len(sets))
        )
        dissimilar = len(labels) ** 2 - similar
        if not dissimilar:
            raise LabelError(
                f"All {len(labels)} tiles share a label with all others: codes tell tiles of "
                "different labels apart, so labels of at least two classes are needed."
            )
        return cls(sets, of_tile.astype(np.int32), counts, similar / dissimilar)

    def weighted_similarity(
        self, rows: NDArray[np.integer], columns: NDArray[np.integer], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Sums over sets q in `columns` of S_pq times `weights` (columns, k) for p in `rows`."""
        sums = np.empty((len(rows), weights.shape[1]))
        for block in _blocks(len(rows), len(columns)):
            shared = _share_label(self.sets[rows[block]], self.sets[columns])
            sums[block] = shared.astype(np.float64) @ weights
        # S = (1 + r) * shared - r
        return (1 + self.dissimilarity) * sums - self.dissimilarity * weights.sum(axis=0)


@dataclass(frozen=True)
class CodeSums:
    """What the loss needs to know of all codes v of a database.

    Attributes:
        gram: Sum of v v^T over all tiles, float64 (bits, bits).
        by_set: Sums of v over the tiles of each label set, float64 (P, bits).
    """

    gram: NDArray[np.float64]
    by_set: NDArray[np.float64]


def sum_codes(codes: Words, bits: int, label_sets: LabelSets) -> CodeSums:
    """Sums the packed codes (n, words) of a database, exactly, in blocks of rows."""
    check_words(codes, bits)
    gram, by_set = np.zeros((bits, bits)), np.zeros((len(label_sets.sets), bits))
    for rows in _slices(len(codes), _ROWS):
        sets, words, _, counts = _states(codes[rows], label_sets.of_tile[rows])
        by_set_first = np.argsort(sets, kind="stable")
        sets, words, counts = sets[by_set_first], words[by_set_first], counts[by_set_first]
        signs = unpack(words, bits).astype(np.float32)
        weighted = signs * counts[:, None].astype(np.float32)
        gram += signs.T @ weighted
        starts = np.flatnonzero(np.r_[True, sets[1:] != sets[:-1]])
        by_set[sets[starts]] += np.add.reduceat(weighted, starts, axis=0)
    return CodeSums(gram, by_set)


class SimilarityLoss:
    """The similarity and quantisation terms for sampled tiles against a whole database.

    With u_i a network output, v_j a code of c bits and n tiles in the database, a batch has the
    loss 1/(n b) * [sum_i sum_j (u_i.v_j - c S_ij)^2 + weight * sum_i |v_i - u_i|^2]. The inner sum
    is u_i.G u_i - 2c u_i.sum_p S_ip M_p + c^2 sum_p n_p S_ip^2 for label sets p of n_p tiles, with
    the Gram matrix G of the codes and their sums M_p: a step costs the same for any n.
    """

    def __init__(
        self,
        codes: Words,
        bits: int,
        label_sets: LabelSets,
        sums: CodeSums,
        sampled: NDArray[np.integer],
        quantisation_weight: float,
        device: torch.device | str = "cpu",
    ) -> None:
        """Prepares the loss for the tiles in rows `sampled` (m,) of the codes (n, words)."""
        every = np.arange(len(label_sets.sets))
        present, place = np.unique(label_sets.of_tile[sampled], return_inverse=True)
        counts = label_sets.counts[:, None].astype(np.float64)
        similar_codes = label_sets.weighted_similarity(present, every, sums.by_set)
        # S^2 = S (1 - r) + r, as S is either 1 or -r.
        r = label_sets.dissimilarity
        squares = (1 - r) * label_sets.weighted_similarity(present, every, counts) + r * len(codes)

        def tensor(values: NDArray) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float64, device=device)

        self._gram = tensor(sums.gram)
        self._pull = tensor(bits * similar_codes[place])
        self._constant = tensor(bits**2 * squares[place, 0])
        self._codes = tensor(unpack(codes[sampled], bits))
        self._scale = 1 / len(codes)
        self._weight = quantisation_weight

    def __call__(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: Network outputs u, float (b, bits).
            rows: Places of the batch's tiles among the sampled ones, int64 (b,).

        Returns:
            A scalar of double precision: the three large sums nearly cancel.
        """
        u = outputs.double()
        fit = (u * (u @ self._gram - 2 * self._pull[rows])).sum(dim=1) + self._constant[rows]
        quantisation = (self._codes[rows] - u).square().sum(dim=1)
        return self._scale * (fit + self._weight * quantisation).mean()


def update_codes(
    codes: Words,
    bits: int,
    label_sets: LabelSets,
    sampled: NDArray[np.integer],
    outputs: NDArray[np.floating],
    quantisation_weight: float,
) -> None:
    """Optimises every code of a database bit by bit, in place.

    With U the outputs and U' the same with a zero row for every tile not sampled,
    Q = -2c S^T U - 2 weight U', and bit k of all codes becomes
    V_k = -sign(Q_k + 2 V_rest U_rest^T U_k), where `rest` are the other bits, new ones before k.
    A bit that nothing decides becomes +1. Given U^T U each row is on its own, and rows of one label
    set and one old code that were not sampled become one code, which is computed once.

    Args:
        codes: uint64 (n, words), changed in place.
        bits: Their length c.
        label_sets: The label sets of the n tiles.
        sampled: Rows of the sampled tiles, (m,), distinct.
        outputs: Network outputs of the sampled tiles, float (m, bits).
        quantisation_weight: Weight of the quantisation term.
    """
    check_words(codes, bits)
    u = np.asarray(outputs, np.float64)
    cross = u.T @ u
    present, place = np.unique(label_sets.of_tile[sampled], return_inverse=True)
    by_set = np.zeros((len(present), bits))
    np.add.at(by_set, place, u)
    every = np.arange(len(label_sets.sets))
    pull = 2 * bits * label_sets.weighted_similarity(every, present, by_set)
    updated = _descend(
        codes[sampled],
        bits,
        pull[label_sets.of_tile[sampled]] + 2 * quantisation_weight * u,
        cross,
    )
    for rows in _slices(len(codes), _ROWS):
        sets, words, inverse, _ = _states(codes[rows], label_sets.of_tile[rows])
        codes[rows] = _descend(words, bits, pull[sets], cross)[inverse]
    codes[sampled] = updated


def _descend(
    words: Words, bits: int, pull: NDArray[np.float64], cross: NDArray[np.float64]
) -> Words:
    """One pass over the bits of codes (rows, words), given -Q (rows, bits) and U^T U."""
    push = 2 * (cross - np.diag(np.diag(cross)))
    updated = np.empty_like(words)
    # So few rows at once that they stay in the cache from bit to bit: twice as fast.
    for rows in _slices(len(words), max(1, _CACHED_ELEMENTS // bits)):
        # Bits in rows: each step then reads and writes contiguous memory.
        signs = np.ascontiguousarray(unpack(words[rows], bits).T, dtype=np.float64)
        wanted = np.ascontiguousarray(pull[rows].T)
        for k in range(bits):
            signs[k] = np.where(wanted[k] - push[k] @ signs >= 0, 1.0, -1.0)
        updated[rows] = pack(signs.T)
    return updated


def _states(
    words: Words, sets: NDArray[np.int32]
) -> tuple[NDArray[np.int32], Words, NDArray[np.intp], NDArray[np.int64]]:
    """Pairs of label set and code; each row's pair; rows of each pair.

    Sorted by a mixed key, several times faster than by the columns. Rows of one key may differ and
    then part a pair's rows, so that the pair comes more than once: nothing relies on that.
    """
    columns = [sets, *words.T]
    key = np.zeros(len(words), np.uint64)
    for column in columns:
        key = (key ^ column.astype(np.uint64)) * _MIXER
        key ^= key >> np.uint64(32)
    order = np.argsort(key)
    starts, inverse, counts = _runs(columns, order)
    first = order[starts]
    return sets[first], words[first], inverse, counts


def _distinct(
    columns: Sequence[NDArray],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """A row of each distinct row of columns, sorted; each row's place there; numbers of rows."""
    order = np.lexsort(tuple(reversed(columns)))
    starts, inverse, counts = _runs(columns, order)
    return order[starts], inverse, counts


def _runs(
    columns: Sequence[NDArray], order: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Starts of runs of equal rows of columns in an order; each row's run; lengths of the runs."""
    new = np.zeros(len(order), bool)
    new[0] = True
    for column in columns:
        ordered = column[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(new)
    inverse = np.empty(len(order), np.intp)
    inverse[order] = np.cumsum(new) - 1
    return starts, inverse, np.diff(np.r_[starts, len(order)])


def _columns(labels: NDArray[np.bool_]) -> list[NDArray[np.uint64]]:
    """The columns of a bool array (n, classes), packed by 64."""
    octets = np.packbits(labels, axis=1)
    padded = np.zeros((len(labels), -(-octets.shape[1] // 8) * 8), np.uint8)
    padded[:, : octets.shape[1]] = octets
    return list(padded.view(np.uint64).T)


def _share_label(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return a.astype(np.float32) @ b.astype(np.float32).T > 0


def _slices(rows: int, step: int) -> Iterator[slice]:
    for start in range(0, rows, step):
        yield slice(start, start + step)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    return _slices(rows, max(1, _BLOCK_ELEMENTS // max(1, columns)))
