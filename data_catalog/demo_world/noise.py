"""Smooth random fields and stable random numbers: the stuff of the landscape and the weather."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatField = NDArray[np.float32]


class Noise:
    """A smooth random field over a square, with mean 0 and a standard deviation of about 1.

    It is kept as coarse grids, one an octave, and drawn strip by strip, so that a large field never
    stands in memory whole and strips can be drawn by several threads.

    Args:
        rng: Source of the random numbers.
        side: Side of the square, pixels.
        wavelength: Size of the largest structures, pixels.
        octaves: How many times finer structures of half the size are added.
        gain: Amplitude of each octave relative to the one before.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        side: int,
        wavelength: float,
        octaves: int = 1,
        gain: float = 0.5,
    ):
        self.side = side
        amplitudes = gain ** np.arange(octaves)
        amplitudes /= np.sqrt((amplitudes**2).sum()) * 0.75
        self._octaves = []
        for octave, amplitude in enumerate(amplitudes):
            cells = side * 2**octave / wavelength
            count = int(np.ceil(cells)) + 6
            grid = rng.standard_normal((count, count), dtype=np.float32) * np.float32(amplitude)
            self._octaves.append((cells, Image.fromarray(grid)))

    def rows(self, start: int, stop: int) -> FloatField:
        """The field's rows start … stop, float32 (stop - start, side)."""
        total = np.zeros((stop - start, self.side), np.float32)
        for cells, grid in self._octaves:
            scale = cells / self.side
            box = (2.0, 2.0 + start * scale, 2.0 + cells, 2.0 + stop * scale)
            total += np.asarray(
                grid.resize((self.side, stop - start), Image.Resampling.BICUBIC, box)
            )
        return total


def hash_numbers(*keys: NDArray[np.integer] | int) -> NDArray[np.uint32]:
    """A well-mixed 32-bit number for each combination of the integer keys, which are broadcast."""
    mixed: NDArray[np.uint32] = np.array(0x9E3779B9, np.uint32)
    with np.errstate(over="ignore"):
        for key in keys:
            part = np.asarray(key).astype(np.int64).astype(np.uint32)
            mixed = (mixed ^ part) * np.uint32(0x85EBCA6B)
            mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0xC2B2AE35)
            mixed = mixed ^ (mixed >> np.uint32(13))
    return np.asarray(mixed, np.uint32)


def fraction(numbers: NDArray[np.uint32], draw: int = 0) -> FloatField:
    """Uniform numbers in [0, 1) from hashed numbers; the draws 0, 1 and 2 take other bits."""
    bits = (numbers >> np.uint32(8 * draw)) & np.uint32(0xFFFF)
    return bits.astype(np.float32) / np.float32(65536.0)
