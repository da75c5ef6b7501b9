"""Codes without learning, to compare learned ones with: each is fitted, then encodes features.

All of them centre the features first. ITQ is not faiss's: that one ends at a larger quantisation
error and 0.03 to 0.08 less mean AP on AID, and a baseline should be as strong as it can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rshash.codes import MAXIMUM_BITS, Words, check_bits, pack
from rshash.errors import CodeError
from rshash.features import Features


@dataclass(frozen=True)
class LinearHash:
    """Codes from the signs of a linear projection of centred features.

    Attributes:
        mean: float (d,).
        projection: float (d, bits).
    """

    mean: NDArray[np.floating]
    projection: NDArray[np.floating]

    @property
    def bits(self) -> int:
        """Length of the codes."""
        return self.projection.shape[1]

    def encode(self, features: Features) -> Words:
        """Codes, uint64 (n, words), of features (n, d)."""
        return pack((features - self.mean) @ self.projection)


def fit_baselines(train: Features, bits: int, seed: int = 0) -> dict[str, LinearHash]:
    """All baselines by name, fitted to features (n, d).

    The sign of all dimensions is left out where codes cannot have d bits, and what takes principal
    components where there are fewer than `bits`.

    Raises:
        CodeError: The number of bits is not allowed.
    """
    dimensions = train.shape[1]
    fitted = {}
    if dimensions % 8 == 0 and dimensions <= MAXIMUM_BITS:
        fitted["sign of all dimensions"] = fit_sign_of_dimensions(train)
    fitted["LSH"] = fit_lsh(train, bits, seed)
    if bits <= dimensions:
        fitted["PCA-sign"] = fit_pca_sign(train, bits)
        fitted["ITQ"] = fit_itq(train, bits, seed=seed)
    return fitted


def fit_sign_of_dimensions(train: Features) -> LinearHash:
    """One bit for each dimension of features (n, d): is it above its mean?

    Raises:
        CodeError: d is not an allowed number of bits.
    """
    return LinearHash(train.mean(axis=0), np.eye(check_bits(train.shape[1]), dtype=train.dtype))


def fit_lsh(train: Features, bits: int, seed: int = 0) -> LinearHash:
    """Random hyperplanes through the mean of features (n, d).

    Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002.

    Raises:
        CodeError: The number of bits is not allowed.
    """
    random = np.random.default_rng(seed)
    projection = random.normal(size=(train.shape[1], check_bits(bits)))
    return LinearHash(train.mean(axis=0), projection.astype(train.dtype))


def fit_pca_sign(train: Features, bits: int) -> LinearHash:
    """The signs of the first principal components of features (n, d).

    Raises:
        CodeError: The number of bits is not allowed, or larger than d.
    """
    if check_bits(bits) > train.shape[1]:
        raise CodeError(
            f"{bits} principal components are wanted of features of length {train.shape[1]}: "
            "use fewer bits."
        )
    # Linear algebra knows no half precision.
    train = train.astype(np.result_type(train, np.float32), copy=False)
    mean = train.mean(axis=0)
    centred = train - mean
    _, directions = np.linalg.eigh(centred.T @ centred)
    return LinearHash(mean, directions[:, ::-1][:, :bits])


def fit_itq(train: Features, bits: int, iterations: int = 50, seed: int = 0) -> LinearHash:
    """Principal components of features (n, d), rotated towards the corners of the cube.

    Gong and Lazebnik, "Iterative quantization: a Procrustean approach to learning binary codes",
    CVPR 2011, section 2.2.

    Raises:
        CodeError: The number of bits is not allowed, or larger than d.
    """
    train = train.astype(np.result_type(train, np.float32), copy=False)
    components = fit_pca_sign(train, bits)
    projected = (train - components.mean) @ components.projection
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(random.normal(size=(bits, bits)))[0].astype(train.dtype)
    for _ in range(iterations):
        corners = np.where(projected @ rotation >= 0, 1, -1).astype(train.dtype)
        left, _, right = np.linalg.svd(projected.T @ corners)
        rotation = left @ right
    return LinearHash(components.mean, components.projection @ rotation)
