"""Labels of tiles: one class or several for each tile, whatever they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rshash.errors import LabelError


@dataclass(frozen=True)
class TileLabels:
    """Labels of tiles, of which every tile has at least one.

    Attributes:
        tile_ids: The tiles, each once.
        classes: Names of the classes, each once.
        values: Whether a tile is of a class, bool (tiles, classes).

    Raises:
        LabelError: The parts do not fit each other, a tile or class is there twice, or a tile has
            no class.
    """

    tile_ids: tuple[str, ...]
    classes: tuple[str, ...]
    values: NDArray[np.bool_]

    def __post_init__(self) -> None:
        expected = (len(self.tile_ids), len(self.classes))
        values = self.values
        is_array = isinstance(values, np.ndarray)
        if not is_array or values.shape != expected or values.dtype != np.bool_:
            name = type(values).__name__
            raise LabelError(
                f"Labels of {expected[0]} tiles and {expected[1]} classes are an array, bool of "
                f"shape {expected}, but found "
                f"{f'{values.dtype} of shape {values.shape}' if is_array else f'a {name}'}."
            )
        for what, names in (("Class", self.classes), ("Tile", self.tile_ids)):
            if len(set(names)) < len(names):
                name, times = Counter(names).most_common(1)[0]
                raise LabelError(f"{what} {name} is there {times} times: keep it once.")
        unlabelled = np.flatnonzero(~self.values.any(axis=1))
        if len(unlabelled):
            raise LabelError(
                f"{len(unlabelled)} of {expected[0]} tiles have no class, the first is "
                f"{self.tile_ids[unlabelled[0]]}: leave them out."
            )

    def __len__(self) -> int:
        return len(self.tile_ids)

    @property
    def is_single(self) -> bool:
        """Whether every tile is of one class alone."""
        return bool((self.values.sum(axis=1) == 1).all())


def labels_from_fractions(
    tile_ids: Sequence[str],
    classes: Sequence[str],
    fractions: NDArray[np.floating],
    minimum: float,
) -> TileLabels:
    """Labels of tiles from each class's share of a tile's area, such as land cover's.

    Args:
        tile_ids: The tiles.
        classes: Names of the classes.
        fractions: From 0 to 1, float (tiles, classes).
        minimum: Share from which a tile is of a class, above 0 and at most 1. Tiles of no class
            are left out.

    Raises:
        LabelError: The fractions are not of this shape or range, or no tile is left.
    """
    _check_shares(fractions, (len(tile_ids), len(classes)), minimum)
    values = fractions >= minimum
    labelled = np.flatnonzero(values.any(axis=1))
    if not len(labelled):
        raise LabelError(
            f"None of {len(tile_ids)} tiles has a class with a share of at least {minimum:g}: "
            "lower the minimum."
        )
    kept = tuple(tile_ids[row] for row in labelled.tolist())
    return TileLabels(kept, tuple(classes), values[labelled])


def labels_from_probabilities(
    tile_ids: Sequence[str], probabilities: NDArray[np.floating], minimum: float
) -> TileLabels:
    """Labels of tiles from MrHash's pseudo multi-labels, the clusters being the classes.

    Args:
        tile_ids: The tiles.
        probabilities: From 0 to 1, float (tiles, clusters).
        minimum: Probability from which a tile is of a cluster, above 0 and at most 1. Every tile is
            of its most probable cluster.

    Raises:
        LabelError: The probabilities are not of this shape or range.
    """
    clusters = probabilities.shape[1] if probabilities.ndim == 2 else 0
    _check_shares(probabilities, (len(tile_ids), clusters), minimum)
    values = probabilities >= minimum
    values[np.arange(len(values)), probabilities.argmax(axis=1)] = True
    return TileLabels(tuple(tile_ids), tuple(map(str, range(clusters))), values)


def align(labels: TileLabels, tile_ids: Sequence[str]) -> tuple[NDArray[np.int64], TileLabels]:
    """Brings labels into the order of tiles whose features are at hand.

    Args:
        labels: Labels of some of these tiles.
        tile_ids: The tiles, in the order of their features' rows.

    Returns:
        The rows of the tiles that have labels, ascending, and the labels in the same order.

    Raises:
        LabelError: There are labels for tiles that are not among these.
    """
    place = {tile_id: row for row, tile_id in enumerate(tile_ids)}
    unknown = [tile_id for tile_id in labels.tile_ids if tile_id not in place]
    if unknown:
        raise LabelError(
            f"{len(unknown)} of {len(labels)} labelled tiles are unknown, the first is "
            f"{unknown[0]}: take them out of the labels, or ingest their area."
        )
    rows = np.array([place[tile_id] for tile_id in labels.tile_ids], np.int64)
    order = np.argsort(rows)
    ordered = tuple(labels.tile_ids[i] for i in order)
    return rows[order], TileLabels(ordered, labels.classes, labels.values[order])


def _check_shares(shares: NDArray[np.floating], shape: tuple[int, int], minimum: float) -> None:
    if shares.shape != shape or 0 in shape:
        raise LabelError(
            f"Shares have shape (tiles, classes), here {shape}, but found {shares.shape}."
        )
    if not 0 < minimum <= 1:
        raise LabelError(f"The minimum is above 0 and at most 1, but found {minimum:g}.")
    wrong = np.argwhere(~((shares >= 0) & (shares <= 1 + 1e-6)))
    if len(wrong):
        row, column = wrong[0]
        raise LabelError(
            f"Shares are from 0 to 1, but {len(wrong)} are not: the first, in row {row} and "
            f"column {column}, is {shares[row, column]}."
        )
