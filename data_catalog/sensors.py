"""Sensors as data: bands, masks, and how a scene's numbers become what was measured."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
import pystac
from numpy.typing import NDArray

from data_catalog.asset_metadata import StatedBand, find_asset
from data_catalog.errors import SensorError
from data_catalog.sensor_files import explain, nearest, read_tables

EXTRA_SENSORS = "RSHASH_SENSORS"
"""Environment variable: path of a TOML file of further sensors, written like ``sensors.toml``."""


@pydantic.with_config(extra="forbid")
@dataclass(frozen=True)
class Band:
    """One band of a sensor.

    Attributes:
        keys: Asset keys that catalogues use for it, in order of preference.
        resolution: Metres per pixel of the asset.
    """

    keys: Annotated[tuple[str, ...], pydantic.Field(min_length=1)]
    resolution: int


@pydantic.with_config(extra="forbid")
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

    keys: Annotated[tuple[str, ...], pydantic.Field(min_length=1)]
    resolution: int
    nodata: int
    unclear_classes: tuple[int, ...] = ()
    unclear_bits: tuple[int, ...] = ()

    def clear(self, values: NDArray[np.uint16]) -> NDArray[np.bool_]:
        """Which mask values are clear ground."""
        return _clear_values(self)[values]


@cache
def _clear_values(mask: Mask) -> NDArray[Any]:
    values = np.arange(2**16)
    unclear = np.isin(values, mask.unclear_classes) | (values == mask.nodata)
    for bit in mask.unclear_bits:
        unclear |= (values >> bit) & 1 == 1
    return ~unclear


@pydantic.with_config(extra="forbid")
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
    scale: Annotated[float, pydantic.Field(gt=0)]
    offset: float


REFLECTANCE = Stored("reflectance", "1", 1e-4, 0.0)


@pydantic.with_config(extra="forbid")
@dataclass(frozen=True)
class BaselineOffset:
    """An offset that products have from one processing baseline on.

    Attributes:
        baseline: Such as ``04.00``.
        offset: Added to what was measured.
        applied: Properties that, if true, say that the catalogue has added it to the pixels; if
            false, that it has not, whatever its assets state.
    """

    baseline: str
    offset: float
    applied: tuple[str, ...] = ()


@pydantic.with_config(extra="forbid")
@dataclass(frozen=True)
class Sensor:
    """An imaging sensor's product, as catalogues offer it.

    Attributes:
        id: The sensor's ID, such as ``sentinel-2-l2a``.
        resolution: Metres per pixel of its tiles.
        bands: Bands by canonical name.
        title: Its name for people; the ID for none.
        default_bands: Names of the bands that are read unless others are asked for; all for none.
        picture_bands: Names of the bands that are shown as red, green and blue. Of two, blue is
            the difference; one is shown in grey.
        collections: Collection ID by catalogue profile; ``default`` for the rest.
        only: Values by property of the scenes that are wanted; their case does not matter.
        resampling: How pixels are brought onto the tile grid where they do not lie on it.
        scale: What was measured = number x scale + offset, unless the scene states another scale;
            None where each scene must.
        offset: See scale.
        offset_from_baseline: A further offset of newer products.
        decibels: Whether what was measured is a power, to be stored as 10 log10 of it.
        mask: None where every observed pixel counts as clear.
        nodata: The number of pixels that were not observed, unless the scene states another.
        stored: What the numbers of its tiles mean.
        license: SPDX identifier, or ``other``.
        license_url: The licence's text.
        attribution: Text due to whoever shows data; ``{years}`` stands for the years of the scenes.
        providers: STAC provider objects.
    """

    id: Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    resolution: Annotated[int, pydantic.Field(gt=0)]
    bands: Annotated[dict[str, Band], pydantic.Field(min_length=1)]
    title: str = ""
    default_bands: tuple[str, ...] = ()
    picture_bands: tuple[str, ...] = ()
    collections: dict[str, str] = field(default_factory=dict)
    only: dict[str, tuple[str, ...]] = field(default_factory=dict)
    resampling: Literal["nearest", "bilinear", "cubic", "average"] = "cubic"
    scale: float | None = None
    offset: float = 0.0
    offset_from_baseline: BaselineOffset | None = None
    decibels: bool = False
    mask: Mask | None = None
    nodata: float = 0
    stored: Stored = REFLECTANCE
    license: str = "other"
    license_url: str | None = None
    attribution: str = ""
    providers: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Fills in what follows from the rest, and checks what no single field can.

        Raises:
            ValueError: Pixel sizes do not fit each other, or a band is named that is not there.
        """
        parts = {f"bands.{name}": band.resolution for name, band in self.bands.items()}
        if self.mask:
            parts["mask"] = self.mask.resolution
        for part, metres in {"resolution": self.resolution, **parts}.items():
            if metres <= 0 or metres % self.resolution or 60 % metres:
                raise ValueError(
                    f"{part}: {metres} m pixels; they must divide 60 m and be a multiple of the "
                    f"sensor's {self.resolution} m"
                )
        names = tuple(self.bands)
        true_colour = ("red", "green", "blue")
        shown = true_colour if set(true_colour) <= set(names) else names[:1]
        for key, value in {
            "title": self.title or self.id,
            "default_bands": self.default_bands or names,
            "picture_bands": self.picture_bands or shown,
        }.items():
            object.__setattr__(self, key, value)
        for key in ("default_bands", "picture_bands"):
            unknown = [name for name in getattr(self, key) if name not in self.bands]
            if unknown:
                raise ValueError(f"{key}: there is no band {unknown[0]} among {', '.join(names)}")

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
                    f"Sensor {self.id} has no band {name!r}{nearest(name, self.bands)}: "
                    f"its bands are {', '.join(self.bands)}."
                )
        if not names or len(set(names)) < len(names):
            raise SensorError(f"Bands {', '.join(names) or '(none)'}: name each band once.")
        return names

    def collection(self, profile: str) -> str:
        """The ID under which a catalogue holds the sensor's scenes."""
        return self.collections.get(profile, self.collections["default"])

    def wants(self, item: pystac.Item) -> bool:
        """Whether a scene of its collection is one of its own."""
        return all(
            str(item.properties.get(key, "")).lower() in {value.lower() for value in values}
            for key, values in self.only.items()
        )

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
        SensorError: There is none, with the nearest names; or the file of sensors is at fault.
    """
    sensors = _sensors(os.environ.get(EXTRA_SENSORS))
    if sensor_id not in sensors:
        raise SensorError(
            f"Sensor {sensor_id!r} is unknown{nearest(sensor_id, sensors)}: "
            f"there are {', '.join(sensors)}. More can be added with {EXTRA_SENSORS}."
        )
    return sensors[sensor_id]


def known_sensors() -> list[Sensor]:
    """All sensors.

    Raises:
        SensorError: The file of sensors is at fault.
    """
    return list(_sensors(os.environ.get(EXTRA_SENSORS)).values())


def resolve_band(item: pystac.Item, sensor: Sensor, band: str) -> SceneBand:
    """Finds a band's asset in a scene, and the scale, offset and nodata of its numbers.

    Raises:
        SensorError: The scene lacks the asset, or what is needed to know what its numbers mean.
    """
    known = sensor.bands[band]
    key, stated = find_asset(item, band, known.keys, known.resolution)
    scale = sensor.scale if stated.scale is None else stated.scale
    if scale is None:
        raise SensorError(
            f"Scene {item.id}, asset {key}: neither it nor the sensor {sensor.id} states a scale, "
            f"so what its numbers mean is unknown: give the sensor a scale."
        )
    offset = _offset(item, sensor, stated)
    nodata = sensor.nodata if stated.nodata is None else stated.nodata
    return SceneBand(key, item.assets[key].href, scale, offset, nodata)


def resolve_mask(item: pystac.Item, mask: Mask) -> SceneBand:
    """Finds the mask's asset in a scene.

    Raises:
        SensorError: The scene lacks it.
    """
    key, _ = find_asset(item, "mask", mask.keys, mask.resolution)
    return SceneBand(key, item.assets[key].href, 1.0, 0.0, mask.nodata)


def _offset(item: pystac.Item, sensor: Sensor, stated: StatedBand) -> float:
    rule = sensor.offset_from_baseline
    told = [] if rule is None else [item.properties.get(key) for key in rule.applied]
    if True in told:
        return sensor.offset
    # Where a catalogue says that it left the pixels alone, its assets' offsets are a template's.
    if stated.offset is not None and False not in told:
        return stated.offset
    if rule is None:
        return sensor.offset
    baseline = processing_baseline(item)
    if baseline is None:
        raise SensorError(
            f"Scene {item.id} does not state its s2:processing_baseline, so its offset is unknown."
        )
    return sensor.offset + (rule.offset if baseline >= _version(rule.baseline) else 0.0)


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
    own = resources.files("data_catalog").joinpath("sensors.toml").read_text()
    tables = read_tables(own, "sensors.toml", {})
    sensors = {name: _sensor(name, table, "sensors.toml") for name, table in tables.items()}
    if extra:
        file = f"{EXTRA_SENSORS}={extra}"
        try:
            text = Path(extra).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SensorError(f"{file} cannot be read: {error}.") from None
        added = read_tables(text, file, tables)
        sensors |= {name: _sensor(name, table, file) for name, table in added.items()}
    return sensors


def _sensor(name: str, table: dict[str, Any], file: str) -> Sensor:
    try:
        return pydantic.TypeAdapter(Sensor).validate_python({**table, "id": name})
    except pydantic.ValidationError as error:
        parts = (Sensor, Band, Mask, Stored, BaselineOffset)
        keys = {one.name for part in parts for one in fields(part)} | {"like", "collection"}
        raise explain(error, file, name, keys - {"id"}) from None
