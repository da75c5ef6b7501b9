"""Planning an ingest: which scenes may show which tiles, and what of it is not known yet."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pystac
from shapely.geometry.base import BaseGeometry

from data_catalog import stac
from data_catalog.areas import parse_area, parse_period
from data_catalog.catalogue import Catalogue
from data_catalog.errors import CatalogueError, SourceError
from data_catalog.grid import (
    BLOCK_TILES,
    DEFAULT_TILE_SIZE,
    blocks_of,
    tiles_covering,
)
from data_catalog.reading import NOT_OBSERVED
from data_catalog.redaction import redacted, redacted_record
from data_catalog.scenes import newest_processing, pass_of, scene_datetime, scenes_over
from data_catalog.segments import (
    collection_of,
    published_bands,
    segment_index,
)
from data_catalog.sensors import Sensor, get_sensor
from data_catalog.source_catalogue import open_source

PLANS = ".plans"
"""Folder of the catalogue that holds plans until their segment is published."""

_UNREDACTED: dict[Path, dict[str, Any]] = {}


@dataclass(frozen=True)
class IngestPlan:
    """What one run is to read for one sensor: saved, so that any process can read its blocks.

    Attributes:
        segment_id: The segment that the run makes; the same content gives the same ID.
        catalog: Folder of the catalogue.
        sensor_id: Sensor ID.
        profile: Of the source catalogue.
        tile_size: Metres on a side.
        bands: Canonical names, in order.
        minimum_clear: Clear fraction below which a tile is invalid.
        blocks: IDs of the scenes that may see a tile, by block ID and tile ID.
        scenes: The scenes' STAC items by ID, unsigned.
    """

    segment_id: str
    catalog: str
    sensor_id: str
    profile: str
    tile_size: int
    bands: tuple[str, ...]
    minimum_clear: float
    blocks: dict[str, dict[str, list[str]]]
    scenes: dict[str, dict[str, Any]]

    @property
    def sensor(self) -> Sensor:
        """The sensor."""
        return get_sensor(self.sensor_id)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read."""
        return not self.blocks

    @property
    def block_ids(self) -> list[str]:
        """IDs of the blocks to read, sorted: a block's number in the segment is its place here."""
        return list(self.blocks)

    @property
    def folder(self) -> Path:
        """Where the plan is saved."""
        return Path(self.catalog) / PLANS / self.segment_id

    @cached_property
    def items(self) -> dict[str, pystac.Item]:
        """The scenes by ID."""
        return {k: pystac.Item.from_dict(v, migrate=False) for k, v in self.scenes.items()}

    def summary(self) -> dict[str, int]:
        """What reading it will cost: scenes, blocks, tiles, and bytes before compression.

        Bytes count every mask of every block once and the bands of each tile once; what is really
        transferred is compressed, and grows where tiles are put together from several scenes.
        """
        sensor, side = self.sensor, self.tile_size
        tiles = sum(len(wanted) for wanted in self.blocks.values())
        pixels = sum((side // sensor.bands[band].resolution) ** 2 for band in self.bands)
        mask = sensor.mask.resolution if sensor.mask else sensor.resolution
        masks = sum(len(_scene_ids(wanted)) for wanted in self.blocks.values())
        mask_bytes = masks * (BLOCK_TILES * side // mask) ** 2
        return {
            "scenes": len(self.scenes),
            "blocks": len(self.blocks),
            "tiles": tiles,
            "bytes": 2 * tiles * pixels + mask_bytes,
        }

    def save(self, catalogue: Catalogue) -> Path:
        """Saves the plan in its catalogue; returns its folder, which :func:`ingest_block` takes.

        Signatures and passwords in the scenes' addresses are left out: just this process, which
        was given them, can read such scenes.
        """
        assert Path(self.catalog) == catalogue.root
        catalogue.begin()
        content = asdict(self)
        content["scenes"] = redacted_record(self.scenes)
        if content["scenes"] != self.scenes:
            _UNREDACTED[self.folder / "plan.json"] = self.scenes
        stac.write_json(self.folder / "plan.json", content)
        return self.folder

    @classmethod
    def load(cls, folder: Path | str) -> IngestPlan:
        """Loads a saved plan.

        Raises:
            CatalogueError: There is none.
        """
        path = Path(folder) / "plan.json"
        if not path.exists():
            raise CatalogueError(f"{folder} holds no plan: its segment is published, or plan anew.")
        return _load_plan(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _load_plan(path: Path, modified: int) -> IngestPlan:
    # Every block's task loads the plan: parsing thousands of scenes again would cost more than
    # the reading does.
    content = stac.read_json(path)
    content["bands"] = tuple(content["bands"])
    content["scenes"] = _UNREDACTED.get(path, content["scenes"])
    return IngestPlan(**{f.name: content[f.name] for f in fields(IngestPlan)})


def plan_ingest(
    catalogue: Catalogue,
    source: str,
    sensor: str,
    area: str | BaseGeometry,
    period: str,
    *,
    tile_size: int = DEFAULT_TILE_SIZE,
    bands: list[str] | None = None,
    minimum_clear: float = 0.6,
) -> IngestPlan:
    """Searches for scenes and plans what of them is to be read; writes nothing.

    What published segments have considered already is left out, so that a nightly run reads what
    is new; scenes that could not be read are planned again. A new scene brings along those of its
    pass that see the same tile: together they may fill what each of them leaves open.

    Args:
        catalogue: Where the segment is to be published.
        source: As :func:`~data_catalog.source_catalogue.open_source` takes it.
        sensor: Sensor ID.
        area: As :func:`~data_catalog.areas.parse_area` takes it.
        period: As :func:`~data_catalog.areas.parse_period` takes it.
        tile_size: Metres on a side, a multiple of 60.
        bands: Canonical names; None for the sensor's default bands.
        minimum_clear: Clear fraction below which a tile is invalid.

    Returns:
        The plan, empty if all there is has been considered before.

    Raises:
        SourceError: The source cannot be searched, or offers nothing and nothing was ever there.
        SensorError: The sensor or a band is unknown.
        AreaError: The area or the period cannot be understood.
        GridError: The area or the tile size does not fit the grid.
    """
    known = get_sensor(sensor)
    names = known.check_bands(bands)
    geometry, interval = parse_area(area), parse_period(period)
    tiles = tiles_covering(geometry, tile_size)
    origin = open_source(source)
    scenes = newest_processing(origin.search(known, geometry, interval))
    done = _considered(catalogue, known, names, minimum_clear)
    if not scenes and not any(tile.id in done for tile in tiles):
        between = interval.replace(".999999", "").replace("/", " and ")
        raise SourceError(
            f"{redacted(origin.address)} has no {known.title} scenes over the area "
            f"between {between}: check the area and the period."
        )
    candidates = scenes_over(tiles, scenes)
    passes = {scene.id: pass_of(scene) for scene in scenes}
    wanted = {
        tile: _unread(ids, done.get(tile.id, set()), passes) for tile, ids in candidates.items()
    }
    blocks = {
        block.id: {tile.id: wanted[tile] for tile in members}
        for block, members in blocks_of([tile for tile, ids in wanted.items() if ids]).items()
    }
    used = {scene_id for members in blocks.values() for scene_id in _scene_ids(members)}
    chosen = [scene for scene in scenes if scene.id in used]
    content = [known.id, names, tile_size, minimum_clear, blocks]
    return IngestPlan(
        _segment_id(chosen, [*content, catalogue.item_ids(collection_of(known.id))]),
        str(catalogue.root),
        known.id,
        origin.profile,
        tile_size,
        names,
        minimum_clear,
        blocks,
        {scene.id: scene.to_dict(transform_hrefs=False) for scene in chosen},
    )


def _considered(
    catalogue: Catalogue, sensor: Sensor, bands: tuple[str, ...], minimum_clear: float
) -> dict[str, set[str]]:
    done: dict[str, set[str]] = {}
    for item in catalogue.items(collection_of(sensor.id)):
        if not published_bands(item).issuperset(bands):
            continue
        index = segment_index(catalogue, item)
        # What was too cloudy for an earlier, stricter run gets a second chance.
        unseen = index["reason"].str.startswith(NOT_OBSERVED).eq(True)
        unclear = index["clear_fraction"] < minimum_clear
        index = index[(index["state"] == "valid") | unclear | unseen]
        for tile_id, scene_ids in zip(index["tile_id"], index["considered_scenes"], strict=True):
            done.setdefault(tile_id, set()).update(scene_ids)
    return done


def _unread(scene_ids: list[str], done: set[str], passes: dict[str, str]) -> list[str]:
    new = {passes[scene_id] for scene_id in scene_ids if scene_id not in done}
    return [scene_id for scene_id in scene_ids if passes[scene_id] in new]


def _scene_ids(wanted: dict[str, list[str]]) -> set[str]:
    return {scene_id for scene_ids in wanted.values() for scene_id in scene_ids}


def _segment_id(scenes: list[pystac.Item], content: list[Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
    days = sorted(scene_datetime(scene).strftime("%Y%m%d") for scene in scenes)
    return f"{days[0]}-{days[-1]}-{digest}" if days else f"empty-{digest}"
