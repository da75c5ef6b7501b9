import numpy as np
import pytest

from rshash.errors import LabelError
from rshash.labels import TileLabels, align, labels_from_fractions, labels_from_probabilities

TILES = ("tile-a", "tile-b", "tile-c")


def test_fractions_give_every_class_that_covers_enough_and_leave_out_tiles_without_one() -> None:
    fractions = np.array([[0.7, 0.3], [0.2, 0.1], [0.0, 0.3]], np.float32)
    labels = labels_from_fractions(TILES, ["forest", "water"], fractions, 0.3)
    assert labels.tile_ids == ("tile-a", "tile-c")
    assert labels.classes == ("forest", "water")
    assert labels.values.tolist() == [[True, True], [False, True]]
    assert not labels.is_single


def test_probabilities_keep_each_tiles_most_probable_cluster() -> None:
    probabilities = np.array([[0.5, 0.4, 0.1], [0.3, 0.2, 0.25], [0.1, 0.1, 0.8]])
    labels = labels_from_probabilities(TILES, probabilities, 0.4)
    assert labels.classes == ("0", "1", "2")
    assert labels.values.astype(int).tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_alignment_follows_the_tiles_and_leaves_out_those_without_labels() -> None:
    labels = TileLabels(("tile-c", "tile-a"), ("x", "y"), np.eye(2, dtype=bool))
    rows, aligned = align(labels, TILES)
    assert rows.tolist() == [0, 2]
    assert aligned.tile_ids == ("tile-a", "tile-c")
    assert aligned.values.tolist() == [[False, True], [True, False]]
    assert aligned.is_single


def test_labels_of_unknown_tiles_are_counted_and_named() -> None:
    labels = TileLabels(TILES, ("x",), np.ones((3, 1), bool))
    with pytest.raises(LabelError, match=r"2 of 3 labelled tiles are unknown.*tile-b"):
        align(labels, ["tile-a", "tile-z"])


@pytest.mark.parametrize(
    ("tiles", "classes", "values", "message"),
    [
        (TILES, ("x", "y"), np.ones((3, 1), bool), "bool of shape"),
        (TILES, ("x",), np.ones((3, 1)), "found float64"),
        (("a", "a"), ("x",), np.ones((2, 1), bool), "Tile a is there 2 times"),
        (("a",), ("x", "x"), np.ones((1, 2), bool), "Class x is there 2 times"),
        (TILES, ("x",), np.array([[True], [False], [False]]), "2 of 3 tiles .* first is tile-b"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    tiles: tuple[str, ...], classes: tuple[str, ...], values: np.ndarray, message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        TileLabels(tiles, classes, values)


def test_labels_in_a_list_are_refused() -> None:
    with pytest.raises(LabelError, match=r"bool of shape \(2, 1\), but found a list"):
        TileLabels(("a", "b"), ("x",), [[True], [True]])


@pytest.mark.parametrize(
    ("fractions", "minimum", "message"),
    [
        (np.full((3, 2), 0.5), 0.6, "lower the minimum"),
        (np.full((3, 1), 0.5), 0.5, "shape"),
        (np.full((3, 2), 50.0), 0.5, "from 0 to 1, but 6"),
        (np.full((3, 2), np.nan), 0.5, "row 0 and column 0, is nan"),
        (np.full((3, 2), 0.5), 0.0, "above 0"),
    ],
)
def test_fractions_that_cannot_be_used_are_refused(
    fractions: np.ndarray, minimum: float, message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        labels_from_fractions(TILES, ["x", "y"], fractions, minimum)


@pytest.mark.parametrize("probabilities", [np.full((3, 2), 2.0), np.full((2, 2), 0.5), np.ones(3)])
def test_probabilities_that_cannot_be_used_are_refused(probabilities: np.ndarray) -> None:
    with pytest.raises(LabelError, match="Shares"):
        labels_from_probabilities(TILES, probabilities, 0.5)
