"""What STAC items say of their assets' bands, in the words of STAC 1.0 and of STAC 1.1 alike."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pystac

from data_catalog.errors import SensorError

_Sources = list[dict[str, Any]]
_RESOLUTION = ("gsd", "spatial_resolution", "raster:spatial_resolution")
_PICTURES = {"overview", "thumbnail", "visual"}
"""Roles of assets that were made for the eye: their numbers measure nothing."""


@dataclass(frozen=True)
class StatedBand:
    """What an asset says of one of its bands; None where it does not say.

    Attributes:
        name: The provider's name, such as ``B04``.
        common_name: STAC's name, such as ``red``.
        scale: What was measured is number x scale + offset.
        offset: See scale.
        nodata: The number of pixels that were not observed; may be NaN.
        resolution: Metres per pixel.
    """

    name: str | None
    common_name: str | None
    scale: float | None
    offset: float | None
    nodata: float | None
    resolution: float | None


def stated_bands(asset: pystac.Asset) -> list[StatedBand]:
    """What an asset says of each of its bands; one band of which nothing is said, if none is.

    Raises:
        SensorError: It states a scale, an offset or another number that is none.
    """
    return [_stated(sources) for sources in _sources(asset)]


def find_asset(
    item: pystac.Item, name: str, keys: Collection[str], resolution: int
) -> tuple[str, StatedBand]:
    """The asset of a band: by known keys, else by what the assets say of their bands.

    A JPEG 2000 file is taken only where there is no cloud-optimised twin: reading a window of it
    costs most of the file.

    Args:
        item: The scene.
        name: The band's canonical name.
        keys: Asset keys of the band, in order of preference.
        resolution: Metres per pixel: tells apart assets of one band.

    Returns:
        The asset's key, and what it says of the band.

    Raises:
        SensorError: There is no such asset, it holds other bands too, or there are several.
    """
    known = [key for key in keys if key in item.assets]
    found = [key for key in known if not _is_jpeg2000(item.assets[key])][:1]
    found = found or _described(item, {name, *keys}, resolution) or known
    found = [key for key in found if not _is_jpeg2000(item.assets[key])] or found[:1]
    if len(found) > 1:
        raise SensorError(
            f"Scene {item.id} has several assets of the band {name}: {', '.join(found)}. Name one "
            f"of them in the sensor's keys of the band."
        )
    if not found:
        raise SensorError(
            f"Scene {item.id} has no asset {' or '.join(keys)}, and none that calls itself {name}: "
            f"it has {', '.join(item.assets) or 'none'}."
        )
    bands = stated_bands(item.assets[found[0]])
    if len(bands) > 1:
        raise SensorError(
            f"Scene {item.id}: its asset {found[0]} holds {len(bands)} bands, but an asset of its "
            f"own is expected for {name}: name another key."
        )
    return found[0], bands[0]


def _described(item: pystac.Item, names: set[str], resolution: int) -> list[str]:
    """Keys of the assets that call their only band so; the provider's names go first."""
    only = {
        key: _sources(asset)[0]
        for key, asset in item.assets.items()
        if len(_sources(asset)) == 1 and not _PICTURES & set(asset.roles or [])
    }
    found: list[str] = []
    for spellings in (("name",), ("common_name", "eo:common_name")):
        found = found or [key for key, said in only.items() if _last(said, *spellings) in names]
    fitting = [key for key in found if _last(only[key], *_RESOLUTION) == resolution]
    return fitting or found


def _is_jpeg2000(asset: pystac.Asset) -> bool:
    path = asset.href.partition("?")[0].lower()
    return asset.media_type == pystac.MediaType.JPEG2000 or path.endswith((".jp2", ".j2k"))


def _sources(asset: pystac.Asset) -> list[_Sources]:
    """For each band, where something is said of it, from the general to the particular."""
    fields = asset.extra_fields
    lists = [fields.get(key) or [] for key in ("eo:bands", "raster:bands", "bands")]
    return [[fields, *row] for row in zip_longest(*lists, fillvalue={})] or [[fields]]


def _stated(sources: _Sources) -> StatedBand:
    return StatedBand(
        name=_last(sources, "name"),
        common_name=_last(sources, "common_name", "eo:common_name"),
        scale=_number(sources, "scale", "raster:scale"),
        offset=_number(sources, "offset", "raster:offset"),
        nodata=_number(sources, "nodata"),
        resolution=_number(sources, *_RESOLUTION),
    )


def _last(sources: _Sources, *keys: str) -> Any:
    said = [source[key] for source in sources for key in keys if source.get(key) is not None]
    return said[-1] if said else None


def _number(sources: _Sources, *keys: str) -> float | None:
    said = _last(sources, *keys)
    try:
        return None if said is None else float(said)  # STAC writes NaN as "nan"
    except (TypeError, ValueError):
        raise SensorError(
            f"An asset states its {keys[0]} as {said!r}, where a number is expected."
        ) from None
