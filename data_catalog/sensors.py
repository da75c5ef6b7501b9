"""Sensors as data: bands, masks, and how a scene's numbers become reflectance."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray

from data_catalog.errors import SensorError

EXTRA_SENSORS = "RSHASH_SENSORS"
"""Environment variable: path of a TOML file of further sensors, written like ``sensors.toml``."""


@dataclass(frozen=True)
class Band:
    """One band of a sensor.

    Attributes:
        keys: Asset keys that catalogues use for it, in order of preference.
        resolution: Metres per pixel of the asset.
    """

    keys: tuple[str, ...]
    resolution: int


@dataclass(frozen=True)
class Mask:
    """The asset that tells clear ground from cloud: classes, or bits of a quality word.

    Attributes:
        keys: Asset keys that catalogues use for it, in order of preference.
        resolution: Metres per pixel of the asset.
        nodata: The value of pixels that were not observed.
        unclear_classes: Values that are no clear ground.
        unclear_bits: Bits that, if set, say that this is no clear ground.
    """

    keys: tuple[str, ...]
    resolution: int
    nodata: int
    unclear_classes: tuple[int, ...] = ()
    unclear_bits: tuple[int, ...] = ()

    def clear(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Which mask values are clear ground."""
        unclear = np.isin(values, self.unclear_classes) | (values == self.nodata)
        for bit in self.unclear_bits:
            unclear |= (values >> bit) & 1 == 1
        return ~unclear


@dataclass(frozen=True)
class Stored:
    """What the numbers of a sensor's tiles mean: physical = number x scale + offset, 0 is nodata.

    Attributes:
        quantity: What was measured, such as ``reflectance``.
        unit: Its unit; ``1`` where it has none.
        scale: Physical difference between successive numbers.
        offset: Physical value of the number 0, were it not nodata.
    """

    quantity: str
    unit: str
    scale: float
    offset: float


REFLECTANCE = Stored("reflectance", "1", 1e-4, 0.0)


@dataclass(frozen=True)
class Sensor:
    """An imaging sensor's product, as catalogues offer it.

    Attributes:
        id: The sensor's ID, such as ``sentinel-2-l2a``.
        title: Its name for people.
        resolution: Metres per pixel of its tiles.
        bands: Bands by canonical name.
        default_bands: Names of the bands that are read unless others are asked for.
        collections: Collection ID by catalogue profile; ``default`` for the rest.
        platforms: If not empty, the only platforms wanted, in lower case.
        resampling: How pixels are brought onto the tile grid where they do not lie on it.
        scale: Reflectance = number x scale + offset.
        offset: See scale.
        offset_from_baseline: ``baseline`` and ``offset``: from that processing baseline on.
        mask: None where every observed pixel counts as clear.
        nodata: The number of pixels that were not observed, unless the scene names another.
        stored: What the numbers of its tiles mean.
        license: SPDX identifier, or ``other``.
        license_url: The licence's text.
        attribution: Text due to whoever shows data; ``{years}`` stands for the years of the scenes.
        providers: STAC provider objects.
    """

    id: str
    title: str
    resolution: int
    bands: dict[str, Band]
    default_bands: tuple[str, ...]
    collections: dict[str, str]
    platforms: tuple[str, ...] = ()
    resampling: str = "nearest"
    scale: float = 1.0
    offset: float = 0.0
    offset_from_baseline: dict[str, Any] | None = None
    mask: Mask | None = None
    nodata: float | None = 0
    stored: Stored = REFLECTANCE
    license: str = "other"
    license_url: str | None = None
    attribution: str = ""
    providers: list[dict[str, Any]] = field(default_factory=list)

    def check_bands(self, bands: Iterable[str] | None) -> tuple[str, ...]:
        """The bands asked for; the default bands for None.

        Raises:
            SensorError: The sensor has no such band, or one is named twice.
        """
        if bands is None:
            return self.default_bands
        names = tuple(bands)
        for name in names:
            if name not in self.bands:
                raise SensorError(
                    f"Sensor {self.id} has no band {name!r}{_nearest(name, self.bands)}: "
                    f"its bands are {', '.join(self.bands)}."
                )
        if not names or len(set(names)) < len(names):
            raise SensorError(f"Bands {', '.join(names) or '(none)'}: name each band once.")
        return names

    def collection(self, profile: str) -> str:
        """The ID under which a catalogue holds the sensor's scenes."""
        return self.collections.get(profile, self.collections["default"])

    def attribution_of(self, years: Iterable[int]) -> str:
        """The attribution text for scenes of these years."""
        return self.attribution.format(years=", ".join(map(str, sorted(set(years)))))


@dataclass(frozen=True)
class SceneBand:
    """Where a scene keeps a band; what it measured is number x scale + offset.

    Attributes:
        key: Asset key.
        href: The asset's address, unsigned.
        scale: See above.
        offset: See above.
        nodata: The number of pixels that were not observed, beside NaN; None if there is none.
    """

    key: str
    href: str
    scale: float
    offset: float
    nodata: float | None = None


def get_sensor(sensor_id: str) -> Sensor:
    """The sensor of an ID.

    Raises:
        SensorError: There is none; the message offers the nearest names.
    """
    sensors = _sensors(os.environ.get(EXTRA_SENSORS))
    if sensor_id not in sensors:
        raise SensorError(
            f"Sensor {sensor_id!r} is unknown{_nearest(sensor_id, sensors)}: "
            f"there are {', '.join(sensors)}. More can be added with {EXTRA_SENSORS}."
        )
    return sensors[sensor_id]


def resolve_band(item: pystac.Item, sensor: Sensor, band: str) -> SceneBand:
    """Finds a band's asset in a scene, and the scale and offset that give reflectance.

    Raises:
        SensorError: The scene lacks the asset, or what is needed to know its offset.
    """
    key = _asset_key(item, sensor.bands[band].keys)
    return SceneBand(key, item.assets[key].href, sensor.scale, _offset(item, sensor), sensor.nodata)


def resolve_mask(item: pystac.Item, mask: Mask) -> SceneBand:
    """Finds the mask's asset in a scene.

    Raises:
        SensorError: The scene lacks it.
    """
    key = _asset_key(item, mask.keys)
    return SceneBand(key, item.assets[key].href, 1.0, 0.0, mask.nodata)


def _asset_key(item: pystac.Item, keys: tuple[str, ...]) -> str:
    for key in keys:
        if key in item.assets:
            return key
    raise SensorError(
        f"Scene {item.id} has no asset {' or '.join(keys)}: "
        f"it has {', '.join(item.assets) or 'none'}."
    )


def _offset(item: pystac.Item, sensor: Sensor) -> float:
    rule = sensor.offset_from_baseline
    # Earth Search tells where it has applied the offset, although raster:bands go on stating it.
    if rule is None or item.properties.get("earthsearch:boa_offset_applied") is True:
        return sensor.offset
    baseline = processing_baseline(item)
    if baseline is None:
        raise SensorError(
            f"Scene {item.id} does not state its s2:processing_baseline, so its offset is unknown."
        )
    return sensor.offset + (rule["offset"] if baseline >= _version(rule["baseline"]) else 0.0)


def processing_baseline(item: pystac.Item) -> tuple[int, ...] | None:
    """A Sentinel-2 scene's processing baseline as comparable numbers; None if not stated."""
    text = item.properties.get("s2:processing_baseline")
    try:
        return None if text is None else _version(str(text))
    except ValueError:
        return None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@lru_cache(maxsize=8)
def _sensors(extra: str | None) -> dict[str, Sensor]:
    tables = tomllib.loads(resources.files("data_catalog").joinpath("sensors.toml").read_text())
    sensors = {name: _sensor(name, table) for name, table in tables.items()}
    if extra:
        try:
            tables = tomllib.loads(Path(extra).read_text())
            sensors |= {name: _sensor(name, table) for name, table in tables.items()}
        except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
            raise SensorError(
                f"{EXTRA_SENSORS}={extra}: no sensors can be read from it ({error!r}). "
                "Write it like data_catalog/sensors.toml."
            ) from None
    return sensors


def _sensor(name: str, table: dict[str, Any]) -> Sensor:
    bands = {k: Band(tuple(v["keys"]), v["resolution"]) for k, v in table["bands"].items()}
    mask: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in table.get("mask", {}).items()
    }
    known = dict(table)
    known |= {
        "bands": bands,
        "mask": Mask(**mask) if mask else None,
        "default_bands": tuple(table.get("default_bands", bands)),
        "platforms": tuple(table.get("platforms", ())),
        "collections": table.get("collections", {"default": name}),
    }
    sensor = Sensor(id=name, **known)
    for label, part in [*bands.items(), ("mask", sensor.mask)]:
        if part and (part.resolution % sensor.resolution or 60 % part.resolution):
            raise ValueError(
                f"{name}: {label} has {part.resolution} m pixels; they must divide 60 m and be a "
                f"multiple of the sensor's {sensor.resolution} m"
            )
    return sensor


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=2, cutoff=0.4)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
