"""What the ground is made of, and the reflectance of each material on a day of the year."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""The bands that spectra are given in, named as Sentinel-2's."""

LEVELS = 64
"""Steps of vigour: how dense, ripe or bright a material is at a place."""


class Material(IntEnum):
    """Ground cover other than crops."""

    LAKE = 0
    RIVER = 1
    CONIFER = 2
    BROADLEAF = 3
    MEADOW = 4
    DRY_GRASS = 5
    REED = 6
    ROCK = 7
    SAND = 8
    ASPHALT = 9
    RED_ROOF = 10
    BRIGHT_ROOF = 11
    CONCRETE = 12
    GARDEN = 13
    CLEARCUT = 14
    TRACK = 15
    HEATH = 16


class Crop(IntEnum):
    """Crops; on each of the soils they are a material of their own."""

    WHEAT = 0
    BARLEY = 1
    RAPESEED = 2
    MAIZE = 3
    BEET = 4
    ALFALFA = 5
    POTATO = 6
    FALLOW = 7


SOILS = ("brown soil", "dark soil", "pale soil")
FIRST_CROP = 32
MATERIALS = FIRST_CROP + len(SOILS) * len(Crop)

# Reflectance of pure covers in thousandths, in the order of BANDS; values typical of field spectra.
# fmt: off
_PURE = {
    "clear water": (24, 22, 19, 10, 8, 7, 6, 5, 5, 4, 2, 1),
    "green water": (30, 34, 52, 28, 22, 12, 11, 9, 8, 6, 3, 2),
    "turbid water": (52, 62, 86, 66, 50, 26, 24, 19, 16, 12, 5, 3),
    "conifers": (12, 14, 26, 17, 38, 120, 155, 165, 180, 180, 80, 35),
    "broadleaves": (18, 21, 46, 24, 68, 235, 315, 335, 350, 350, 160, 70),
    "green crop": (22, 28, 64, 29, 88, 310, 405, 430, 450, 450, 190, 90),
    "grass": (28, 36, 76, 48, 112, 250, 300, 320, 340, 340, 220, 120),
    "dry grass": (50, 65, 98, 116, 155, 200, 220, 240, 260, 270, 310, 210),
    "ripe cereal": (48, 68, 118, 150, 190, 225, 250, 275, 300, 310, 330, 200),
    "stubble": (70, 98, 148, 192, 222, 242, 262, 285, 310, 320, 380, 280),
    "blossom": (30, 40, 130, 125, 165, 300, 370, 400, 410, 410, 200, 100),
    "brown soil": (48, 62, 90, 124, 146, 162, 178, 194, 215, 220, 290, 240),
    "dark soil": (30, 36, 50, 66, 78, 88, 99, 110, 125, 130, 190, 165),
    "pale soil": (92, 124, 172, 218, 242, 260, 278, 298, 320, 325, 390, 340),
    "rock": (90, 106, 126, 144, 156, 166, 176, 187, 198, 204, 250, 220),
    "sand": (120, 158, 214, 264, 288, 304, 320, 338, 352, 356, 430, 400),
    "asphalt": (70, 77, 87, 94, 101, 107, 112, 120, 126, 130, 150, 140),
    "red roof": (58, 70, 96, 168, 190, 204, 216, 230, 245, 250, 280, 250),
    "bright roof": (200, 230, 262, 284, 292, 298, 304, 312, 320, 320, 310, 280),
    "concrete": (110, 134, 160, 178, 190, 200, 208, 220, 232, 236, 270, 250),
    "heather": (26, 32, 46, 54, 82, 135, 155, 170, 185, 190, 200, 120),
    "reed": (30, 36, 62, 54, 92, 160, 190, 210, 220, 220, 160, 85),
}
# fmt: on

_MIXES = {
    Material.LAKE: ("clear water", "green water"),
    Material.RIVER: ("green water", "turbid water"),
    Material.CONIFER: ("conifers", "broadleaves"),
    Material.BROADLEAF: ("conifers", "broadleaves"),
    Material.MEADOW: ("grass", "green crop"),
    Material.DRY_GRASS: ("dry grass", "grass"),
    Material.REED: ("turbid water", "reed"),
    Material.ROCK: ("rock", "sand"),
    Material.SAND: ("brown soil", "sand"),
    Material.ASPHALT: ("asphalt", "concrete"),
    Material.RED_ROOF: ("asphalt", "red roof"),
    Material.BRIGHT_ROOF: ("concrete", "bright roof"),
    Material.CONCRETE: ("asphalt", "concrete"),
    Material.GARDEN: ("grass", "broadleaves"),
    Material.CLEARCUT: ("brown soil", "grass"),
    Material.TRACK: ("brown soil", "pale soil"),
    Material.HEATH: ("heather", "dry grass"),
}

# Percentages of green, ripe, stubble and blossom on days of the year; the rest is bare soil.
# fmt: off
_CALENDARS: dict[Crop, dict[int, tuple[int, int, int, int]]] = {
    Crop.WHEAT: {
        90: (50, 0, 0, 0), 155: (92, 5, 0, 0), 176: (55, 42, 0, 0), 196: (4, 95, 0, 0),
        206: (0, 97, 0, 0), 209: (0, 5, 93, 0), 245: (5, 0, 35, 0),
    },
    Crop.BARLEY: {
        90: (50, 0, 0, 0), 145: (85, 10, 0, 0), 163: (30, 65, 0, 0), 178: (0, 97, 0, 0),
        192: (0, 95, 3, 0), 195: (0, 0, 90, 0), 225: (10, 0, 20, 0),
    },
    Crop.RAPESEED: {
        90: (80, 0, 0, 0), 118: (30, 0, 0, 65), 140: (90, 0, 0, 5), 172: (82, 12, 0, 0),
        194: (30, 60, 0, 0), 203: (10, 80, 0, 0), 206: (0, 0, 85, 0), 240: (40, 0, 20, 0),
    },
    Crop.MAIZE: {
        130: (0, 0, 0, 0), 150: (8, 0, 0, 0), 172: (32, 0, 0, 0), 195: (85, 0, 0, 0),
        240: (92, 0, 0, 0), 275: (40, 50, 0, 0),
    },
    Crop.BEET: {
        110: (0, 0, 0, 0), 145: (30, 0, 0, 0), 168: (80, 0, 0, 0), 190: (97, 0, 0, 0),
        260: (95, 0, 0, 0),
    },
    Crop.ALFALFA: {
        90: (70, 5, 0, 0), 150: (95, 0, 0, 0), 180: (85, 5, 5, 0), 195: (90, 0, 0, 0),
        210: (45, 10, 30, 0), 260: (90, 0, 0, 0),
    },
    Crop.POTATO: {
        120: (0, 0, 0, 0), 150: (25, 0, 0, 0), 172: (75, 0, 0, 0), 200: (90, 0, 0, 0),
        225: (50, 30, 0, 0),
    },
    Crop.FALLOW: {
        100: (5, 0, 0, 0), 170: (10, 5, 0, 0), 240: (25, 5, 0, 0),
    },
}
# fmt: on


def crop_material(soil: NDArray[np.integer] | int, crop: NDArray[np.integer] | int) -> NDArray:
    """The material number of crops on soils."""
    return np.asarray(FIRST_CROP + np.asarray(soil) * len(Crop) + np.asarray(crop), np.uint8)


def spectral_table(day_of_year: int) -> NDArray[np.float32]:
    """Reflectance of all materials on a day.

    Args:
        day_of_year: 1 … 366, as seen from the northern hemisphere's seasons.

    Returns:
        Float32 (material, level of vigour, band). Vigour mixes the two covers of a natural
        material; of a crop it says how dense and how early the stand is.
    """
    pure: dict[str, NDArray[np.float32]] = {
        name: np.array(values, np.float32) / np.float32(1000) for name, values in _PURE.items()
    }
    table = np.zeros((MATERIALS, LEVELS, len(BANDS)), np.float32)
    vigour = np.linspace(0.0, 1.0, LEVELS, dtype=np.float32)[:, None]
    for material, (low, high) in _MIXES.items():
        table[material] = (1 - vigour) * pure[low] + vigour * pure[high]
    for soil, soil_name in enumerate(SOILS):
        for crop in Crop:
            table[crop_material(soil, crop)] = _crop_spectra(
                crop, pure[soil_name], pure, day_of_year
            )
    return table


def _crop_spectra(
    crop: Crop, soil: NDArray[np.float32], pure: dict[str, NDArray[np.float32]], day_of_year: int
) -> NDArray[np.float32]:
    vigour = np.linspace(0.0, 1.0, LEVELS)
    calendar = _CALENDARS[crop]
    shares = np.array(list(calendar.values()), float) / 100
    days = day_of_year + 16.0 * (vigour - 0.5)
    green, ripe, stubble, blossom = (
        np.interp(days, list(calendar), share)[:, None] for share in shares.T
    )
    green = green * np.clip(0.7 + 0.6 * vigour, 0, 1.0)[:, None]
    bare = np.clip(1 - green - ripe - stubble - blossom, 0, 1) * (1.12 - 0.24 * vigour[:, None])
    mixed = (
        green * pure["green crop"]
        + ripe * pure["ripe cereal"]
        + stubble * pure["stubble"]
        + blossom * pure["blossom"]
        + bare * soil
    )
    return np.asarray(mixed, np.float32)
