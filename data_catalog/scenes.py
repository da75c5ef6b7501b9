"""How scenes belong together: the ground they see, their pass, the newest processing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import numpy as np
import pystac
import shapely
from shapely.affinity import translate
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from data_catalog.grid import Tile, footprints
from data_catalog.sensors import processing_baseline

_PROCESSED = (
    "s2:generation_time",
    "landsat:product_generated",
    "s1:processing_datetime",
    "created",
    "updated",
)


def scene_area(item: pystac.Item) -> BaseGeometry:
    """A scene's ground in longitude and latitude, in one piece.

    Scenes over the antimeridian are written in many ways; here their longitudes go on past 180°.
    """
    area = shape(item.geometry) if item.geometry else _box(item.bbox or [-180, -90, 180, 90])
    area = area if area.is_valid else shapely.make_valid(area)
    west, _, east, _ = area.bounds
    if east - west <= 180.0:
        return area
    # Nothing a satellite sees at once is that wide: this one was cut at, or wrapped around, 180°.
    return shapely.make_valid(shapely.transform(area, _unwrapped))


def globe_copies(area: BaseGeometry) -> list[BaseGeometry]:
    """The area with its copies 360° to the west and to the east."""
    return [translate(area, xoff=by) for by in (-360.0, 0.0, 360.0)]


def pass_of(item: pystac.Item) -> str:
    """What scenes of one overflight and one processing have in common: they can be mosaicked."""
    properties = item.properties
    if "s2:datatake_id" in properties:
        return str(properties["s2:datatake_id"])
    parts = [properties.get("platform", "")]
    if "s1:datatake_id" in properties:
        parts += ["datatake", properties["s1:datatake_id"]]
    elif "sat:absolute_orbit" in properties:
        # One orbit sees a place going up and going down, from different sides.
        parts += ["orbit", properties["sat:absolute_orbit"], properties.get("sat:orbit_state", "")]
    else:
        day = scene_datetime(item).strftime("%Y%m%d")
        parts += [properties.get("landsat:wrs_path", ""), day]
    return "_".join(str(part).lower() for part in parts if part)


def newest_processing(items: Iterable[pystac.Item]) -> list[pystac.Item]:
    """One scene of every acquisition, that of the newest processing, in order of time and ID."""
    newest: dict[Any, pystac.Item] = {}
    for item in items:
        key = _acquisition(item)
        if key not in newest or _processing(item) > _processing(newest[key]):
            newest[key] = item
    return sorted(newest.values(), key=lambda item: (scene_datetime(item), item.id))


def scenes_over(tiles: list[Tile], scenes: list[pystac.Item]) -> dict[Tile, list[str]]:
    """IDs of the scenes that may see a tile, for every tile that any may see.

    Tiles that the same scenes may see share one list.
    """
    if not (tiles and scenes):
        return {}
    tree = shapely.STRtree(footprints(tiles))
    copies = [copy for scene in scenes for copy in globe_copies(scene_area(scene))]
    copy_numbers, near = tree.query(copies, predicate="intersects")
    pairs = np.sort(near.astype(np.int64) * len(scenes) + copy_numbers // 3)
    pairs = pairs[np.diff(pairs, prepend=-1) != 0]
    seen, scene_numbers = np.divmod(pairs, len(scenes))
    starts = np.flatnonzero(np.diff(seen, prepend=-1))
    ids = [scene.id for scene in scenes]
    shared: dict[bytes, list[str]] = {}
    found: dict[Tile, list[str]] = {}
    ends = np.append(starts, len(pairs))[1:]
    for number, start, end in zip(seen[starts].tolist(), starts, ends, strict=True):
        group = scene_numbers[start:end]
        key = group.tobytes()
        if key not in shared:
            shared[key] = [ids[scene] for scene in group.tolist()]
        found[tiles[number]] = shared[key]
    return found


def scene_datetime(item: pystac.Item) -> datetime:
    """The moment of a scene; the start, where it has an interval."""
    moment = item.datetime or item.common_metadata.start_datetime
    assert moment is not None  # STAC demands one of the two
    return moment


def scene_epsg(item: pystac.Item) -> int | None:
    """EPSG code of the scene's projection; None if not told.

    Catalogues write it in two ways, for the scene or for each of its assets.
    """
    told = (item.properties, *(asset.extra_fields for asset in item.assets.values()))
    for fields in told:
        code = str(fields.get("proj:code") or fields.get("proj:epsg") or "")
        number = code.upper().removeprefix("EPSG:")
        if number.isdecimal():
            return int(number)
    return None


def _acquisition(item: pystac.Item) -> tuple[Any, ...]:
    properties = item.properties
    if "s2:datatake_id" in properties:
        granule = properties.get("s2:mgrs_tile") or properties.get("grid:code", "")
        # A granule may hold two strips of one datatake: two acquisitions, told by their start.
        strip = str(properties.get("s2:datastrip_id", "")).rpartition("_S")[2].partition("_")[0]
        datatake = str(properties["s2:datatake_id"]).rpartition("_N")[0]
        return datatake, str(granule).removeprefix("MGRS-"), strip
    if "landsat:wrs_path" in properties:
        day = scene_datetime(item).date()
        path_row = properties["landsat:wrs_path"], properties.get("landsat:wrs_row")
        return (str(properties.get("platform", "")).lower(), *path_row, day)
    if "s1:datatake_id" in properties:
        slice_number = properties.get("s1:slice_number", scene_datetime(item))
        return pass_of(item), slice_number
    return (item.id,)


def _processing(item: pystac.Item) -> tuple[Any, ...]:
    moments = [str(item.properties[key]) for key in _PROCESSED if key in item.properties]
    return processing_baseline(item) or (), moments[0] if moments else "", item.id


def _box(bbox: list[float]) -> BaseGeometry:
    west, south, east, north = bbox if len(bbox) == 4 else (*bbox[:2], *bbox[3:5])
    return shapely.box(west, south, east + 360.0 if east < west else east, north)


def _unwrapped(xy: Any) -> Any:
    return np.where((np.arange(2) == 0) & (xy < 0.0), xy + 360.0, xy)
