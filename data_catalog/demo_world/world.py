"""Builds the demonstration world: COGs of scenes and land cover, and a static STAC catalogue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.transform import Affine
from shapely.geometry import Polygon, box

from data_catalog.demo_world import instruments, items
from data_catalog.demo_world.instruments import Sky, View, Window
from data_catalog.demo_world.land_cover import LAND_COVER, write_land_cover
from data_catalog.demo_world.landscape import Ground, paint_landscape
from data_catalog.demo_world.scenes import (
    NIGHTS,
    Acquisition,
    Extent,
    World,
    granules,
    landsat_extent,
    seen_part,
    swath_edges,
)
from data_catalog.errors import SourceError

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what was just done."""

DEFAULT_WORLD = World()
_THREADS = 2


@dataclass(frozen=True)
class _Scene:
    """One scene to be written."""

    acquisition: Acquisition
    extent: Extent
    seen: Polygon
    seed: int

    @property
    def sensor(self) -> str:
        return self.acquisition.sensor


def world_area(world: World = DEFAULT_WORLD) -> Polygon:
    """The world's area in longitude and latitude, a little inside its outermost tiles' edges."""
    west, south, east, north = world.bounds
    area = world.lonlat(shapely.segmentize(box(west + 30, south + 30, east - 30, north - 30), 2000))
    return Polygon(area.exterior)


def build_world(
    folder: Path,
    night: int,
    world: World = DEFAULT_WORLD,
    progress: Progress | None = None,
) -> Path:
    """Writes the scenes that are new on a night, and the catalogue over all scenes so far.

    Args:
        folder: Where the catalogue is, or shall be.
        night: 1 for the first scenes, 2 for the few that come later, into the same folder.
        world: Place, size and seed.
        progress: Is told about every file written.

    Returns:
        Path of the static catalogue's ``catalog.json``.

    Raises:
        SourceError: There is no such night, or night 2 comes before night 1.
    """
    folder = Path(folder)
    if night not in NIGHTS:
        raise SourceError(f"The demonstration world has the nights {sorted(NIGHTS)}, not {night}.")
    if night > 1 and not (folder / "catalog.json").exists():
        raise SourceError(
            f"{folder} holds no demonstration world yet: build night {night - 1} first."
        )
    scenes = list(_scenes(world, night))
    steps = _Steps(3 + sum(len(_bands(scene)) + 1 for scene in scenes), progress)
    ground = _ground(world.side, world.seed)
    steps.done("landscape")
    if not (folder / LAND_COVER / "collection.json").exists():
        write_land_cover(folder, world, ground)
    steps.done("land cover")
    with ThreadPoolExecutor(_THREADS) as pool:
        passes = NIGHTS[night]
        views = dict(
            zip(passes, pool.map(lambda one: View(ground, _sky(world, one)), passes), strict=True)
        )
        made = [
            _write_scene(folder, world, scene, views[scene.acquisition], pool, steps)
            for scene in scenes
        ]
    _write_catalogue(folder, made)
    steps.done("catalogue")
    return folder / "catalog.json"


class _Steps:
    def __init__(self, total: int, progress: Progress | None):
        self.count, self.total, self.progress = 0, total, progress

    def done(self, what: str) -> None:
        self.count += 1
        if self.progress:
            self.progress(self.count, self.total, what)


@lru_cache(maxsize=1)
def _ground(side: int, seed: int) -> Ground:
    return paint_landscape(side, seed)


def _sky(world: World, acquisition: Acquisition) -> Sky:
    day = acquisition.time.timetuple().tm_yday
    return instruments.make_sky(
        world.side,
        cloudiness=acquisition.cloudiness,
        day_of_year=day,
        seed=world.seed * 1000 + day,
    )


def _scenes(world: World, night: int) -> Iterator[_Scene]:
    for number, acquisition in enumerate(NIGHTS[night]):
        if acquisition.sensor == "landsat-c2-l2":
            extents = [landsat_extent(world, acquisition.track)]
        else:
            extents = granules(world)[-1:] if acquisition.only_last else granules(world)
        for place, extent in enumerate(extents):
            seen = seen_part(world, acquisition, extent)
            if seen.area > 0:
                yield _Scene(acquisition, extent, seen, 100 * night + 10 * number + place)


def _bands(scene: _Scene) -> dict[str, tuple[str, int]]:
    """Asset keys of a scene's bands: the band of the spectra and metres."""
    if scene.sensor == "landsat-c2-l2":
        return {key: (band[0], 30) for key, band in items.LANDSAT_BANDS.items()}
    return {key: (key, band[0]) for key, band in items.SENTINEL2_BANDS.items()}


def _write_scene(
    folder: Path, world: World, scene: _Scene, view: View, pool: ThreadPoolExecutor, steps: _Steps
) -> pystac.Item:
    landsat = scene.sensor == "landsat-c2-l2"
    mask, outside = _mask(world, scene, view)
    describe = items.landsat_item if landsat else items.sentinel2_item
    item = describe(
        world, scene.acquisition, scene.extent, scene.seen, _cover(mask, outside, landsat)
    )
    home = folder / scene.sensor / item.id
    home.mkdir(parents=True, exist_ok=True)
    mask[outside] = 1 if landsat else 0
    mask_key, size = ("qa_pixel", 30) if landsat else ("SCL", 20)

    def write_band(key: str, band: str, metres: int) -> str:
        seen = view.reflectance(band, _window(world, scene.extent, metres), seed=scene.seed)
        numbers = (
            instruments.landsat_numbers(seen) if landsat else instruments.sentinel2_numbers(seen)
        )
        numbers[_outside(world, scene, metres)] = 0
        _write_cog(home / item.assets[key].href, numbers, world, scene, metres, nodata=0)
        return key

    jobs = [pool.submit(write_band, key, *band) for key, band in _bands(scene).items()]
    _write_cog(
        home / item.assets[mask_key].href, mask, world, scene, size, nodata=1 if landsat else 0
    )
    steps.done(f"{item.id} {mask_key}")
    for job in as_completed(jobs):
        steps.done(f"{item.id} {job.result()}")
    return item


def _window(world: World, extent: Extent, metres: int) -> Window:
    west, north = world.ground_origin
    return Window(
        row=(north - extent.north) / 10,
        column=(extent.west - west) / 10,
        rows=extent.height // metres,
        columns=extent.width // metres,
        size=metres // 10,
    )


def _outside(world: World, scene: _Scene, metres: int) -> NDArray[np.bool_]:
    """Pixels beyond the swath."""
    extent = scene.extent
    east = extent.west + metres * np.arange(0.5, extent.width // metres)
    north = extent.north - metres * np.arange(0.5, extent.height // metres)
    first, last = swath_edges(world, scene.acquisition, north)
    return np.asarray((east < first[:, None]) | (east > last[:, None]))


def _mask(world: World, scene: _Scene, view: View) -> tuple[NDArray, NDArray[np.bool_]]:
    metres = 30 if scene.sensor == "landsat-c2-l2" else 20
    state, material = view.cover(_window(world, scene.extent, metres))
    classify = (
        instruments.quality_bits
        if scene.sensor == "landsat-c2-l2"
        else instruments.scene_classification
    )
    return classify(state, material), _outside(world, scene, metres)


def _cover(mask: NDArray, outside: NDArray[np.bool_], landsat: bool) -> dict[str, float]:
    """Percentages of a scene's valid pixels that the items report."""
    valid = mask[~outside]

    def share(which: NDArray[np.bool_]) -> float:
        return round(100 * float(which.mean()), 6)

    if landsat:
        return {"cloud": share(valid & (1 << 3) > 0)}
    return {
        "cloud": share((valid == 8) | (valid == 9) | (valid == 10)),
        "shadow": share(valid == 3),
        "vegetation": share(valid == 4),
        "bare": share(valid == 5),
        "water": share(valid == 6),
        "nodata": share(outside),
    }


def _write_cog(
    path: Path, numbers: NDArray, world: World, scene: _Scene, metres: int, *, nodata: int
) -> None:
    north = items.scene_north(world, scene.sensor, scene.extent)
    options = {
        "driver": "COG",
        "height": numbers.shape[0],
        "width": numbers.shape[1],
        "count": 1,
        "dtype": numbers.dtype,
        "crs": f"EPSG:{items.scene_epsg(world, scene.sensor)}",
        "transform": Affine(*items.affine(scene.extent.west, north, metres)),
        "nodata": nodata,
        "blocksize": 512,
        "compress": "deflate",
        "level": 1,
        "predictor": 2,
        "overview_resampling": "nearest"
        if path.stem.endswith(("SCL_20m", "QA_PIXEL"))
        else "average",
    }
    with rasterio.open(path, "w", **options) as file:
        file.write(numbers, 1)


def _write_catalogue(folder: Path, made: list[pystac.Item]) -> None:
    """Writes new items and renews the collections; items of earlier nights stay as they are."""
    sensors = sorted({str(item.collection_id) for item in made})
    for item in made:
        document = item.to_dict(include_self_link=False, transform_hrefs=False)
        # The version that Planetary Computer's items have.
        document["stac_version"] = "1.0.0"
        document["links"] = [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
        ]
        _write_json(folder / str(item.collection_id) / item.id / f"{item.id}.json", document)
    for sensor in sensors:
        paths = sorted((folder / sensor).glob("*/*.json"))
        _write_json(folder / sensor / "collection.json", items.collection_document(sensor, paths))
    _write_json(folder / "catalog.json", items.catalogue_document([*sensors, LAND_COVER]))


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2))
