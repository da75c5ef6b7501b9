"""How sensors see the ground: bands, pixels, haze, noise, clouds, and the numbers that are stored.

A pixel's value is the mean reflectance over its footprint: that is the only point spread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data_catalog.demo_world.landscape import FLAT_SHADE, Ground
from data_catalog.demo_world.noise import FloatField, Noise
from data_catalog.demo_world.spectra import BANDS, LEVELS, Material, spectral_table

_WAVELENGTHS = dict(
    zip(
        BANDS,
        (0.443, 0.490, 0.560, 0.665, 0.704, 0.740, 0.783, 0.842, 0.865, 0.945, 1.610, 2.190),
        strict=True,
    )
)  # micrometres
_SUN_SHIFT = (-28, -22)
"""Rows and columns from a cloud to its shadow: the morning sun stands in the south-east."""

_CLEAR, _THIN, _CLOUD, _SHADOW, _DILATED = range(5)


@dataclass(frozen=True)
class Window:
    """Pixels of one band of one scene on the ground's 10 m pixels.

    Attributes:
        row: First row of the ground, in 10 m pixels; may end in .5.
        column: First column of the ground, in 10 m pixels; may end in .5.
        rows: Pixels of the band.
        columns: Pixels of the band.
        size: Side of a pixel in 10 m pixels: 1, 2, 3 or 6.
    """

    row: float
    column: float
    rows: int
    columns: int
    size: int

    def strip(self, first: int, stop: int) -> Window:
        """Some of the window's rows."""
        return replace(self, row=self.row + first * self.size, rows=stop - first)


@dataclass(frozen=True)
class Sky:
    """The weather while one satellite passes: the same for all its scenes.

    Attributes:
        opacity: How much of the ground the clouds hide, uint8 (y, x), 255 for all.
        shadow: How much light clouds take from the ground, uint8 (y, x), 255 for all.
        haze: Smooth field of aerosol that the correction left, about N(0, 1).
        day_of_year: Season, as in the northern hemisphere.
        seed: Starts the noise of the detectors.
    """

    opacity: NDArray[np.uint8]
    shadow: NDArray[np.uint8]
    haze: Noise
    day_of_year: int
    seed: int


def make_sky(side: int, *, cloudiness: float, day_of_year: int, seed: int) -> Sky:
    """Draws the weather over the ground.

    Args:
        side: Pixels of the ground on a side.
        cloudiness: Share of the sky that clouds hide, 0 … 1.
        day_of_year: 1 … 366, as seen from the northern hemisphere's seasons.
        seed: The same seed gives the same weather.
    """
    rng = np.random.default_rng([seed, 2])
    field = Noise(rng, side, min(330, side / 2), 5, gain=0.5).rows(0, side)
    level = np.quantile(field[::4, ::4], 1.0 - cloudiness) if cloudiness > 0 else np.inf
    depth = np.clip((field - level) / 0.5, 0, 1)
    opacity = (255 * depth**0.7).astype(np.uint8)
    shadow = np.roll(opacity, _SUN_SHIFT, (0, 1))
    # What the roll brings in from the other side belongs to clouds beyond the edge.
    shadow[_SUN_SHIFT[0] :] = 0
    shadow[:, _SUN_SHIFT[1] :] = 0
    shadow = (shadow * 0.62 * (opacity < 120)).astype(np.uint8)
    return Sky(opacity, shadow, Noise(rng, side, side / 2), day_of_year, seed)


class View:
    """The ground under one sky, ready to be seen band by band.

    Args:
        ground: The landscape.
        sky: The weather and the season.
    """

    def __init__(self, ground: Ground, sky: Sky):
        self.ground, self.sky = ground, sky
        self._spectra = spectral_table(sky.day_of_year).reshape(-1, len(BANDS))

    def reflectance(self, band: str, window: Window, *, seed: int) -> FloatField:
        """Surface reflectance as processors deliver it, with residual haze, clouds and noise.

        Args:
            band: Name of Sentinel-2's band; Landsat's take the nearest.
            window: Which pixels.
            seed: Of the noise; one a scene.

        Returns:
            Float32 (y, x).
        """
        rng = np.random.default_rng([seed, BANDS.index(band)])
        result = np.empty((window.rows, window.columns), np.float32)
        # Strips that stay in the processor's cache take half the time.
        step = max(1, 240 // window.size)
        for first in range(0, window.rows, step):
            strip = window.strip(first, min(first + step, window.rows))
            result[first : first + strip.rows] = self._strip(band, strip, rng)
        return result

    def _strip(self, band: str, window: Window, rng: np.random.Generator) -> FloatField:
        area = _covered(window)
        ground, sky = self.ground, self.sky
        index = ground.material[area].astype(np.uint16) * LEVELS + (ground.vigour[area] >> 2)
        seen = self._spectra[:, BANDS.index(band)][index]
        seen *= ground.shade[area] * np.float32(1 / FLAT_SHADE)
        if sky.shadow[area].any():
            seen *= 1 - sky.shadow[area] * np.float32(1 / 255)
        if sky.opacity[area].any():
            cover = sky.opacity[area] * np.float32(1 / 255)
            seen += cover * (_cloud_brightness(band) * (0.72 + 0.28 * cover) - seen)
        seen = mean_over(seen, window)
        rows = slice(int(window.row), int(window.row) + window.rows * window.size)
        columns = slice(int(window.column), int(window.column) + window.columns * window.size)
        haze = sky.haze.rows(rows.start, rows.stop)[:: window.size, columns][:, :: window.size]
        blue = np.float32((_WAVELENGTHS[band] / 0.443) ** -1.6)
        noise = rng.standard_normal(seen.shape, np.float32) * (0.0003 + 0.004 * seen)
        return np.asarray(seen + blue * (0.006 + 0.003 * haze) + noise, np.float32)

    def cover(self, window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What covers each pixel.

        Returns:
            State of the sky over each pixel, and the material in its middle, both (y, x). The
            state is clear, thin cloud, cloud, shadow or fringe, in this module's own numbers.
        """
        area = _covered(window)
        cloud = mean_over(self.sky.opacity[area].astype(np.float32), window)
        shadow = mean_over(self.sky.shadow[area].astype(np.float32), window)
        state = np.full(cloud.shape, _CLEAR)
        state[cloud > 4] = _DILATED
        state[shadow > 40] = _SHADOW
        state[cloud > 30] = _THIN
        state[cloud > 110] = _CLOUD
        middle = window.size // 2
        rows = int(window.row) + middle + np.arange(window.rows) * window.size
        columns = int(window.column) + middle + np.arange(window.columns) * window.size
        return state, self.ground.material[np.ix_(rows, columns)].astype(np.int64)


def _cloud_brightness(band: str) -> np.float32:
    return np.float32(
        np.interp(_WAVELENGTHS[band], (0.44, 0.9, 1.6, 2.2), (0.80, 0.82, 0.56, 0.42))
    )


def _covered(window: Window) -> tuple[slice, slice]:
    """The 10 m pixels that a window touches."""
    last_row = window.row + window.rows * window.size
    last_column = window.column + window.columns * window.size
    return (
        slice(int(np.floor(window.row)), int(np.ceil(last_row))),
        slice(int(np.floor(window.column)), int(np.ceil(last_column))),
    )


def mean_over(values: FloatField, window: Window) -> FloatField:
    """Means of 10 m values over a window's pixels; those cut by a footprint's edge count by half.

    Args:
        values: Float32 (y, x): the 10 m pixels that the window touches.
        window: The pixels to average over.
    """
    if window.row % 1:
        values = (values[:-1] + values[1:]) / np.float32(2)
        values = (values[:, :-1] + values[:, 1:]) / np.float32(2)
    blocks = values.reshape(window.rows, window.size, window.columns, window.size)
    return np.asarray(blocks.mean((1, 3), dtype=np.float32), np.float32)


def sentinel2_numbers(reflectance: FloatField) -> NDArray[np.uint16]:
    """Sentinel-2's digital numbers since processing baseline 04.00: 1000 + 10000 · reflectance."""
    return np.clip(np.rint(reflectance * 10_000 + 1000), 1, 65535).astype(np.uint16)


def landsat_numbers(reflectance: FloatField) -> NDArray[np.uint16]:
    """Digital numbers of Landsat Collection 2 Level 2: reflectance = 2.75e-5 · number - 0.2."""
    return np.clip(np.rint((reflectance + 0.2) / 2.75e-5), 1, 65535).astype(np.uint16)


def scene_classification(
    state: NDArray[np.int64], material: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Sentinel-2's SCL classes, uint8, of what ``View.cover`` returned."""
    classes = np.full(state.shape, 4, np.uint8)
    bare = [Material.ROCK, Material.SAND, Material.TRACK, Material.ASPHALT, Material.RED_ROOF]
    bare += [Material.BRIGHT_ROOF, Material.CONCRETE]
    classes[np.isin(material, bare)] = 5
    classes[material <= Material.RIVER] = 6
    classes[state == _DILATED] = 7
    classes[state == _SHADOW] = 3
    classes[state == _THIN] = 8
    classes[state == _CLOUD] = 9
    return classes


def quality_bits(state: NDArray[np.int64], material: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Landsat's QA_PIXEL, uint16, of what ``View.cover`` returned, with the confidence bits."""
    bits = np.full(
        state.shape, 1 << 6 | 0b01 << 8 | 0b01 << 10 | 0b01 << 12 | 0b01 << 14, np.uint16
    )
    bits[material <= Material.RIVER] |= 1 << 7
    covered = (state == _CLOUD) | (state == _THIN) | (state == _DILATED)
    bits[covered] &= np.uint16(0xFFFF ^ (1 << 6))
    bits[state == _DILATED] |= 1 << 1
    bits[(state == _CLOUD) | (state == _THIN)] |= 1 << 3 | 0b11 << 8
    bits[state == _SHADOW] |= 1 << 4 | 0b11 << 10
    return bits
