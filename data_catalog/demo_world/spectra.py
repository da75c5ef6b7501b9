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

# Reflectance of pure covers, in the order of BANDS; values typical of published field spectra.
_PURE = {
    "clear water": (
        0.024,
        0.022,
        0.019,
        0.010,
        0.008,
        0.007,
        0.006,
        0.005,
        0.005,
        0.004,
        0.002,
        0.001,
    ),
    "green water": (
        0.030,
        0.034,
        0.052,
        0.028,
        0.022,
        0.012,
        0.011,
        0.009,
        0.008,
        0.006,
        0.003,
        0.002,
    ),
    "turbid water": (
        0.052,
        0.062,
        0.086,
        0.066,
        0.050,
        0.026,
        0.024,
        0.019,
        0.016,
        0.012,
        0.005,
        0.003,
    ),
    "conifers": (
        0.012,
        0.014,
        0.026,
        0.017,
        0.038,
        0.120,
        0.155,
        0.165,
        0.180,
        0.180,
        0.080,
        0.035,
    ),
    "broadleaves": (
        0.018,
        0.021,
        0.046,
        0.024,
        0.068,
        0.235,
        0.315,
        0.335,
        0.350,
        0.350,
        0.160,
        0.070,
    ),
    "green crop": (
        0.022,
        0.028,
        0.064,
        0.029,
        0.088,
        0.310,
        0.405,
        0.430,
        0.450,
        0.450,
        0.190,
        0.090,
    ),
    "grass": (0.028, 0.036, 0.076, 0.048, 0.112, 0.250, 0.300, 0.320, 0.340, 0.340, 0.220, 0.120),
    "dry grass": (
        0.050,
        0.065,
        0.098,
        0.116,
        0.155,
        0.200,
        0.220,
        0.240,
        0.260,
        0.270,
        0.310,
        0.210,
    ),
    "ripe cereal": (
        0.048,
        0.068,
        0.118,
        0.150,
        0.190,
        0.225,
        0.250,
        0.275,
        0.300,
        0.310,
        0.330,
        0.200,
    ),
    "stubble": (0.070, 0.098, 0.148, 0.192, 0.222, 0.242, 0.262, 0.285, 0.310, 0.320, 0.380, 0.280),
    "blossom": (0.030, 0.040, 0.130, 0.125, 0.165, 0.300, 0.370, 0.400, 0.410, 0.410, 0.200, 0.100),
    "brown soil": (
        0.048,
        0.062,
        0.090,
        0.124,
        0.146,
        0.162,
        0.178,
        0.194,
        0.215,
        0.220,
        0.290,
        0.240,
    ),
    "dark soil": (
        0.030,
        0.036,
        0.050,
        0.066,
        0.078,
        0.088,
        0.099,
        0.110,
        0.125,
        0.130,
        0.190,
        0.165,
    ),
    "pale soil": (
        0.092,
        0.124,
        0.172,
        0.218,
        0.242,
        0.260,
        0.278,
        0.298,
        0.320,
        0.325,
        0.390,
        0.340,
    ),
    "rock": (0.090, 0.106, 0.126, 0.144, 0.156, 0.166, 0.176, 0.187, 0.198, 0.204, 0.250, 0.220),
    "sand": (0.120, 0.158, 0.214, 0.264, 0.288, 0.304, 0.320, 0.338, 0.352, 0.356, 0.430, 0.400),
    "asphalt": (0.070, 0.077, 0.087, 0.094, 0.101, 0.107, 0.112, 0.120, 0.126, 0.130, 0.150, 0.140),
    "red roof": (
        0.058,
        0.070,
        0.096,
        0.168,
        0.190,
        0.204,
        0.216,
        0.230,
        0.245,
        0.250,
        0.280,
        0.250,
    ),
    "bright roof": (
        0.200,
        0.230,
        0.262,
        0.284,
        0.292,
        0.298,
        0.304,
        0.312,
        0.320,
        0.320,
        0.310,
        0.280,
    ),
    "concrete": (
        0.110,
        0.134,
        0.160,
        0.178,
        0.190,
        0.200,
        0.208,
        0.220,
        0.232,
        0.236,
        0.270,
        0.250,
    ),
    "heather": (0.026, 0.032, 0.046, 0.054, 0.082, 0.135, 0.155, 0.170, 0.185, 0.190, 0.200, 0.120),
    "reed": (0.030, 0.036, 0.062, 0.054, 0.092, 0.160, 0.190, 0.210, 0.220, 0.220, 0.160, 0.085),
}

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

# Day of year: shares of green, ripe, stubble and blossom; the rest is bare soil.
_CALENDARS: dict[Crop, dict[int, tuple[float, float, float, float]]] = {
    Crop.WHEAT: {
        90: (0.5, 0, 0, 0),
        155: (0.92, 0.05, 0, 0),
        176: (0.55, 0.42, 0, 0),
        196: (0.04, 0.95, 0, 0),
        206: (0, 0.97, 0, 0),
        209: (0, 0.05, 0.93, 0),
        245: (0.05, 0, 0.35, 0),
    },
    Crop.BARLEY: {
        90: (0.5, 0, 0, 0),
        145: (0.85, 0.1, 0, 0),
        163: (0.3, 0.65, 0, 0),
        178: (0, 0.97, 0, 0),
        192: (0, 0.95, 0.03, 0),
        195: (0, 0, 0.9, 0),
        225: (0.1, 0, 0.2, 0),
    },
    Crop.RAPESEED: {
        90: (0.8, 0, 0, 0),
        118: (0.3, 0, 0, 0.65),
        140: (0.9, 0, 0, 0.05),
        172: (0.82, 0.12, 0, 0),
        194: (0.3, 0.6, 0, 0),
        203: (0.1, 0.8, 0, 0),
        206: (0, 0, 0.85, 0),
        240: (0.4, 0, 0.2, 0),
    },
    Crop.MAIZE: {
        130: (0, 0, 0, 0),
        150: (0.08, 0, 0, 0),
        172: (0.32, 0, 0, 0),
        195: (0.85, 0, 0, 0),
        240: (0.92, 0, 0, 0),
        275: (0.4, 0.5, 0, 0),
    },
    Crop.BEET: {
        110: (0, 0, 0, 0),
        145: (0.3, 0, 0, 0),
        168: (0.8, 0, 0, 0),
        190: (0.97, 0, 0, 0),
        260: (0.95, 0, 0, 0),
    },
    Crop.ALFALFA: {
        90: (0.7, 0.05, 0, 0),
        150: (0.95, 0, 0, 0),
        180: (0.85, 0.05, 0.05, 0),
        195: (0.9, 0, 0, 0),
        210: (0.45, 0.1, 0.3, 0),
        260: (0.9, 0, 0, 0),
    },
    Crop.POTATO: {
        120: (0, 0, 0, 0),
        150: (0.25, 0, 0, 0),
        172: (0.75, 0, 0, 0),
        200: (0.9, 0, 0, 0),
        225: (0.5, 0.3, 0, 0),
    },
    Crop.FALLOW: {100: (0.05, 0, 0, 0), 170: (0.1, 0.05, 0, 0), 240: (0.25, 0.05, 0, 0)},
}


def crop_material(soil: NDArray[np.integer] | int, crop: NDArray[np.integer] | int) -> NDArray:
    """The material number of crops on soils."""
    return np.asarray(FIRST_CROP + np.asarray(soil) * len(Crop) + np.asarray(crop), np.uint8)


def spectral_table(day_of_year: int) -> NDArray[np.float32]:
    """Reflectance of all materials on a day.

    Args:
        day_of_year: 1 … 366, as seen from the northern hemisphere's seasons.

    Returns:
        Float32 (material, level of vigour, band). Vigour mixes the two covers of a natural material; of a
        crop it says how dense and how early the stand is.
    """
    pure = {name: np.array(values, np.float32) for name, values in _PURE.items()}
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
    shares = np.array(list(calendar.values()), float)
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
