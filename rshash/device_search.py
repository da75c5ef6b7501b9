"""Exact search for the nearest codes in the memory of a GPU, or of any device that torch knows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rshash.codes import Words, check_words
from rshash.errors import CodeError

GROUP_CODES = 64
"""Codes of which it is told together whether one is near: so hardly anything is written."""

CHUNK_CODES = 1 << 26
FIRST_CODES = 1 << 16
"""Searched before all others, for a distance that few of them are within."""

Found = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Distances and rows."""


class DeviceCodes:
    """Codes on a device, searched one query at a time at the speed of reading them."""

    def __init__(self, codes: Tensor, bits: int) -> None:
        """Takes codes that are on their device.

        Args:
            codes: int64 (n, words), the words of codes as signed numbers.
            bits: Length of the codes.

        Raises:
            CodeError: The codes do not fit `bits`.
        """
        words = -(-bits // 64)
        if codes.dtype != torch.int64 or codes.dim() != 2 or codes.shape[1] != words:
            raise CodeError(
                f"Codes of {bits} bits must be int64 of shape (n, {words}), but are {codes.dtype} "
                f"of shape {tuple(codes.shape)}."
            )
        self.bits = bits
        self._codes = codes.contiguous()

    @classmethod
    def of(cls, codes: Words, bits: int, device: torch.device | str) -> DeviceCodes:
        """Copies codes, uint64 (n, words), to a device."""
        signed = np.ascontiguousarray(check_words(codes, bits)).view(np.int64)
        return cls(torch.from_numpy(signed).to(device), bits)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._codes)

    def nearest(self, query: Words, k: int) -> Found:
        """Finds the k nearest rows of a query, exactly.

        Args:
            query: uint64 (1, words).
            k: Rows wanted, at least 1.

        Returns:
            Distances in bits, int32 (k',), and rows, int64 (k',), ordered by distance and then by
            row. k' is the smaller of k and the number of rows.

        Raises:
            CodeError: The query does not fit, or k is below 1.
        """
        if len(check_words(query, self.bits)) != 1 or k < 1:
            raise CodeError(
                f"One query and k of at least 1 are needed, but found {len(query)}, {k}."
            )
        wanted = torch.from_numpy(query.view(np.int64)).to(self._codes.device)
        best = self._codes.new_empty(0), self._codes.new_empty(0)
        first = min(max(FIRST_CODES, k), len(self))
        starts = [0, *range(first, len(self), CHUNK_CODES)]
        for start, stop in zip(starts, [*starts[1:], len(self)], strict=True):
            near = self._near(wanted, start, stop, best[0], k)
            distances = torch.cat([best[0], _distances(self._codes[near], wanted)])
            # Stable, and rows come in order: of equal distances the earlier row stays.
            distances, order = distances.sort(stable=True)
            best = distances[:k], torch.cat([best[1], near])[order[:k]]
        return best[0].cpu().numpy().astype(np.int32), best[1].cpu().numpy()

    def _near(self, query: Tensor, start: int, stop: int, best: Tensor, k: int) -> Tensor:
        """Rows of a chunk that may be among the nearest, in order."""
        rows = torch.arange(start, stop, device=query.device) if len(best) < k else None
        if rows is not None:
            return rows
        limit = best[-1]
        whole = (stop - start) // GROUP_CODES * GROUP_CODES
        groups = self._codes[start : start + whole].view(-1, GROUP_CODES, query.shape[1])
        found = _holds_near(query.device.type)(groups, query, limit).nonzero()
        places = torch.arange(GROUP_CODES, device=query.device)
        near = (start + found * GROUP_CODES + places).flatten()
        rest = torch.arange(start + whole, stop, device=query.device)
        near = torch.cat([near, rest])
        return near[_distances(self._codes[near], query) < limit]


@cache
def _holds_near(device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    # One kernel that reads the codes once; on a CPU compiling takes longer than it saves.
    return torch.compile(_holds_near_code, dynamic=True) if device == "cuda" else _holds_near_code


def _holds_near_code(groups: Tensor, query: Tensor, limit: Tensor) -> Tensor:
    """Whether each group (g, m, words) holds a code nearer than a limit."""
    return (_distances(groups, query) < limit).any(dim=1)


def _distances(codes: Tensor, query: Tensor) -> Tensor:
    """Hamming distances, int64 (...), of codes (..., words) to a query (1, words)."""
    differing = codes ^ query[0]
    # Bits are counted in pairs, then in fours, then in bytes, whose sum ends in the highest byte.
    pairs = differing - ((differing >> 1) & 0x5555555555555555)
    fours = (pairs & 0x3333333333333333) + ((pairs >> 2) & 0x3333333333333333)
    octets = (fours + (fours >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((octets * 0x0101010101010101) >> 56).sum(dim=-1)
