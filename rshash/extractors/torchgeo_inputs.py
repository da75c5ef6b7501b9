"""What torchgeo's weights read: their bands, order, scale and normalisation, from their metadata.

The metadata normalise the numbers of the images that a network was trained on. Which reflectance
such a number stands for is known for the data sets below; of others nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rshash.errors import FeatureError
from rshash.features import band_statistics

WAVELENGTHS = {
    "coastal": 0.443,
    "blue": 0.49,
    "green": 0.56,
    "red": 0.665,
    "rededge1": 0.705,
    "rededge2": 0.74,
    "rededge3": 0.783,
    "nir": 0.842,
    "nir08": 0.865,
    "nir09": 0.945,
    "swir16": 1.61,
    "swir22": 2.19,
    "vv": 5.405,
    "vh": 5.405,
}
"""Micrometres by band; DOFA's authors give radar its frequency in GHz."""

_SENTINEL2 = {
    "B1": "coastal",
    "B2": "blue",
    "B3": "green",
    "B4": "red",
    "B5": "rededge1",
    "B6": "rededge2",
    "B7": "rededge3",
    "B8": "nir",
    "B8A": "nir08",
    "B9": "nir09",
    "B10": "cirrus",
    "B11": "swir16",
    "B12": "swir22",
}
_LANDSAT_TM = {
    "B1": "blue",
    "B2": "green",
    "B3": "red",
    "B4": "nir08",
    "B5": "swir16",
    "B6": "lwir",
    "B6_VCID_1": "lwir_low_gain",
    "B6_VCID_2": "lwir_high_gain",
    "B7": "swir22",
    "B8": "pan",
}
_LANDSAT_OLI = {
    "B1": "coastal",
    "B2": "blue",
    "B3": "green",
    "B4": "red",
    "B5": "nir08",
    "B6": "swir16",
    "B7": "swir22",
    "B8": "pan",
    "B9": "cirrus",
    "B10": "lwir11",
    "B11": "lwir12",
}
_BAND_NAMES = {
    "SENTINEL1_": {"VV": "vv", "VH": "vh"},
    "SENTINEL2_": _SENTINEL2,
    "LANDSAT_TM_": _LANDSAT_TM,
    "LANDSAT_ETM_": _LANDSAT_TM,
    "LANDSAT_OLI_": _LANDSAT_OLI,
}
"""Canonical names of the metadata's bands, by what a weight's name begins with."""

_CANONICAL = {band for names in _BAND_NAMES.values() for band in names.values()}

_CROMA_BANDS = {
    "optical": [name for name in _SENTINEL2.values() if name != "cirrus"],
    "sar": ["vv", "vh"],
}
_CROMA_SIDE, _DOFA_SIDE = 120, 224
_CLIPPED = {"SSL4EO-L", "SatlasPretrain"}
"""Data sets of 8-bit images, where brighter pixels are cut off."""


@dataclass(frozen=True)
class TileInput:
    """How a network reads a tile.

    Attributes:
        bands: Canonical names, in order.
        statistics: Mean and spread by band, in the tile's units.
        side: Pixels on a side that it reads; None for any number.
        clipped: Whether values are cut off below 0 and above 1 once normalised.
        spreads: Spreads below the mean that become 0, and above it that become 1; None where
            (tile - mean) / spread is read as it is.
    """

    bands: list[str]
    statistics: dict[str, list[float]]
    side: int | None
    clipped: bool = False
    spreads: int | None = None

    def scale(self) -> Iterator[tuple[float, float]]:
        """For each band what is subtracted from a tile, and what it is divided by then."""
        for band in self.bands:
            mean, spread = self.statistics[band]
            reach = (self.spreads or 0) * spread
            yield (mean - reach, 2 * reach) if reach else (mean, spread)


def tile_input(
    weights: Any,
    model: str,
    available: Sequence[str] | None,
    statistics: Mapping[str, Sequence[float]] | None,
) -> TileInput:
    """How the network of a model with some weights reads a tile.

    Args:
        weights: Member of one of torchgeo's enumerations of weights.
        model: Name of its model in torchgeo.
        available: Canonical names of the bands there are to read from; None: those it wants.
        statistics: Mean and spread by band that take the place of the metadata's.

    Raises:
        FeatureError: The metadata do not tell its bands or their scale.
    """
    if model.startswith("dofa_"):
        bands = _bands_with_wavelength(weights, available)
        return TileInput(bands, band_statistics(bands, statistics), _DOFA_SIDE)
    if model.startswith("croma_"):
        bands = _CROMA_BANDS["sar" if "vv" in (available or ()) else "optical"]
        known = band_statistics(bands, statistics)
        return TileInput(bands, known, _CROMA_SIDE, clipped=True, spreads=2)
    bands = _bands_of(weights)
    scales = {**_published_statistics(weights, bands), **(statistics or {})}
    lacking = [band for band in bands if band not in scales]
    if lacking:
        raise FeatureError(
            f"The metadata of {weights} do not tell what the numbers of its training images "
            f'({weights.meta["dataset"]}) stand for: give the spec "statistics" with the mean and '
            f"the spread, in the tiles' units, of {', '.join(lacking)}, or use other weights."
        )
    return TileInput(
        bands, band_statistics(bands, scales), _side(weights), weights.meta["dataset"] in _CLIPPED
    )


def _bands_of(weights: Any) -> list[str]:
    for start, names in _BAND_NAMES.items():
        if weights.name.startswith(start):
            found = [band.upper().removeprefix("SR_") for band in weights.meta["bands"]]
            return [names.get(band.replace("B0", "B"), band) for band in found]
    raise FeatureError(
        f"The metadata of {weights} name no bands of a known sensor: use other weights."
    )


def _bands_with_wavelength(weights: Any, available: Sequence[str] | None) -> list[str]:
    unknown = [band for band in available or () if band not in WAVELENGTHS]
    if unknown or not available:
        raise FeatureError(
            f"{weights} reads any bands of known wavelength, but not {', '.join(unknown) or 'none'}"
            f': let the spec\'s "bands" be some of {", ".join(WAVELENGTHS)}.'
        )
    return list(available)


def _published_statistics(weights: Any, bands: Sequence[str]) -> dict[str, Sequence[float]]:
    """The mean and spread in a tile's units that equal scaling to numbers and normalising them."""
    normalisations = [t for t in _transforms(weights) if type(t).__name__ == "Normalize"]
    found: dict[str, Sequence[float]] = {}
    for channel, band in enumerate(bands):
        unit = _unit(weights, band)
        if unit is None or not normalisations:
            continue
        zero, per_number = unit
        mean, spread = 0.0, 1.0
        for step in normalisations:
            mean += spread * step.mean[channel % len(step.mean)]
            spread *= step.std[channel % len(step.std)]
        found[band] = [zero + per_number * mean, per_number * spread]
    return found


def _unit(weights: Any, band: str) -> tuple[float, float] | None:
    """What the number 0 stands for in a tile's units, and a step of 1; None if that is unknown.

    SSL4EO-L: the images' 256 numbers span these ranges (Stewart et al., "SSL4EO-L: Datasets and
    Foundation Models for Landsat Imagery", NeurIPS 2023, and the scripts that made them).
    """
    dataset, name = weights.meta["dataset"], weights.name
    if band not in _CANONICAL:
        return None
    if name.startswith("SENTINEL2_") and dataset in (
        "SSL4EO-S12",
        "SSL4Eco Dataset",
        "CrisisLandMark",
    ):
        return 0.0, 1e-4
    if name.startswith("SENTINEL1_") and dataset == "SSL4EO-S12":
        return 0.0, 1.0
    if dataset == "SSL4EO-L":
        if band.startswith("lwir"):
            return 273.15 - 25, 70 / 256
        return 0.0, (0.3 if "_SR_" in name else 0.4) / 256
    return None


def _side(weights: Any) -> int | None:
    """The side after the last transform that fixes it."""
    sides = [t.size[-1] for t in _transforms(weights) if hasattr(t, "size")]
    return int(sides[-1]) if sides else None


def _transforms(weights: Any) -> list[Any]:
    return [step for step in weights.transforms.modules() if not list(step.children())]
