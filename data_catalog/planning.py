"""Planning an ingest: which scenes may show which tiles, and what of it is not known yet."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pystac
from shapely.geometry.base import BaseGeometry

from data_catalog import stac
from data_catalog.areas import parse_area, parse_period
from data_catalog.catalogue import Catalogue
from data_catalog.catalogue_address import working_folder
from data_catalog.considered import Considered, considered_scenes
from data_catalog.costs import fetched_bytes, seconds_for, stored_bytes
from data_catalog.errors import CatalogueError, SourceError
from data_catalog.grid import DEFAULT_TILE_SIZE, Tile, blocks_of
from data_catalog.nearby_scenes import told_instead
from data_catalog.reading import Composite
from data_catalog.redaction import redacted, redacted_record
from data_catalog.scenes import newest_processing, pass_of, scene_datetime, scenes_over
from data_catalog.search_areas import ground_of
from data_catalog.segments import collection_of
from data_catalog.sensors import Sensor, get_sensor
from data_catalog.source_catalogue import open_source
from data_catalog.tile_cover import tiles_covering

PLANS = ".plans"
"""Folder of the catalogue that holds plans until their segment is published."""

KEEP_DAYS = 7
"""What no run has come back to for this long is given up: nights go on from newer plans."""

_UNREDACTED: dict[Path, dict[str, Any]] = {}


@dataclass(frozen=True)
class IngestPlan:
    """What one run is to read for one sensor: saved, so that any process can read its blocks.

    Attributes:
        segment_id: The segment that the run makes; the same content gives the same ID.
        catalog: Folder or address of the catalogue.
        sensor_id: Sensor ID.
        profile: Of the source catalogue.
        tile_size: Metres on a side.
        bands: Canonical names, in order.
        minimum_clear: Clear fraction below which a tile is invalid.
        composite: As :func:`~data_catalog.reading.read_block` takes it.
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
    composite: Composite
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
        """IDs of the blocks, in order of reading: a block's number in the segment is its place."""
        return list(self.blocks)

    @property
    def folder(self) -> Path:
        """Where the plan is saved."""
        return working_folder(self.catalog) / PLANS / self.segment_id

    @cached_property
    def items(self) -> dict[str, pystac.Item]:
        """The scenes by ID."""
        return {k: pystac.Item.from_dict(v, migrate=False) for k, v in self.scenes.items()}

    @property
    def has_secrets(self) -> bool:
        """Whether the scenes' addresses hold signatures or passwords.

        These are not saved: just the process that planned can read such scenes.
        """
        return redacted_record(self.scenes) != self.scenes

    def summary(self) -> dict[str, int]:
        """What reading it will cost: scenes, blocks, tiles, and estimates as costs.py makes them.

        ``bytes`` are fetched, by ``stored_bytes`` the catalogue grows; ``duration`` is in seconds.
        """
        tiles = sum(len(wanted) for wanted in self.blocks.values())
        fetched = fetched_bytes(self.sensor, self.bands, self.blocks)
        return {
            "scenes": len(self.scenes),
            "blocks": len(self.blocks),
            "tiles": tiles,
            "bytes": fetched,
            "stored_bytes": stored_bytes(self.sensor, self.bands, self.tile_size, tiles),
            "duration": seconds_for(fetched, len(self.blocks)),
        }

    def save(self, catalogue: Catalogue) -> Path:
        """Saves the plan in its catalogue; returns its folder, which :func:`ingest_block` takes.

        Signatures and passwords in the scenes' addresses are left out: just this process, which
        was given them, can read such scenes.
        """
        assert self.catalog == str(catalogue.store)
        catalogue.begin()
        content = vars(self).copy()
        content.pop("items", None)
        content["blocks"], content["groups"] = _grouped(self.blocks)
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
    content["blocks"] = {
        block_id: {tile_id: content["groups"][group] for tile_id, group in tiles.items()}
        for block_id, tiles in content["blocks"].items()
    }
    content["scenes"] = _UNREDACTED.get(path, content["scenes"])
    return IngestPlan(**{f.name: content[f.name] for f in fields(IngestPlan)})


def is_finished(plan_folder: Path | str) -> bool:
    """Whether another run that followed the same saved plan has published its segment."""
    try:
        plan = IngestPlan.load(plan_folder)
    except (CatalogueError, OSError):
        return True
    published = Catalogue(plan.catalog).item_ids(collection_of(plan.sensor_id))
    return plan.segment_id in published


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
    composite: Composite = "best",
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
        composite: As :func:`~data_catalog.reading.read_block` takes it. Of a median the scenes that
            were considered before are read again where there is a new one.

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
    geometry, interval = parse_area(area, tile_size), parse_period(period)
    tiles = tiles_covering(geometry, tile_size)
    ground = ground_of(tiles)
    origin = open_source(source)
    scenes = newest_processing(origin.search(known, ground, interval))
    candidates = scenes_over(tiles, scenes)
    considered = considered_scenes(
        catalogue,
        known.id,
        [tile.id for tile in candidates or tiles],
        [scene.id for scene in scenes],
        bands=names,
        minimum_clear=minimum_clear,
        composite=composite,
    )
    if not candidates and not considered.any_known:
        between = interval.replace(".999999", "").replace("/", " and ")
        raise SourceError(
            f"{redacted(origin.address)} has no {known.title} scenes over the area "
            f"between {between}: check the area and the period."
            f"{told_instead(origin, known, ground, interval)}"
        )
    # What is new of a median is all of it.
    together = {scene.id: pass_of(scene) if composite == "best" else "" for scene in scenes}
    wanted = _unread(candidates, considered, together)
    blocks = {
        block.id: {tile.id: wanted[tile] for tile in members}
        for block, members in blocks_of(list(wanted)).items()
    }
    groups = _grouped(blocks)
    used = {scene_id for group in groups[1] for scene_id in group}
    chosen = [scene for scene in scenes if scene.id in used]
    content = [known.id, names, tile_size, minimum_clear, composite, *groups]
    return IngestPlan(
        _segment_id(chosen, [*content, catalogue.item_ids(collection_of(known.id))]),
        str(catalogue.store),
        known.id,
        origin.profile,
        tile_size,
        names,
        minimum_clear,
        composite,
        blocks,
        {scene.id: scene.to_dict(transform_hrefs=False) for scene in chosen},
    )


def _unread(
    candidates: dict[Tile, list[str]], considered: Considered, passes: dict[str, str]
) -> dict[Tile, list[str]]:
    found: dict[Tile, list[str]] = {}
    # Neighbours share one list of scenes: what is new of it is told once.
    known: dict[tuple[int, int], list[str]] = {}
    groups = considered.groups[: len(candidates)].tolist()
    for (tile, scene_ids), group in zip(candidates.items(), groups, strict=True):
        key = id(scene_ids), group
        if key not in known:
            before = considered.scenes[group]
            new = {passes[scene_id] for scene_id in scene_ids if scene_id not in before}
            known[key] = [scene_id for scene_id in scene_ids if passes[scene_id] in new]
        if known[key]:
            found[tile] = known[key]
    return found


def _grouped(
    blocks: dict[str, dict[str, list[str]]],
) -> tuple[dict[str, dict[str, int]], list[list[str]]]:
    """Blocks with numbers of groups in place of lists of scenes, most of which are alike."""
    numbers: dict[tuple[str, ...], int] = {}
    grouped = {
        block_id: {
            tile_id: numbers.setdefault(tuple(scene_ids), len(numbers))
            for tile_id, scene_ids in tiles.items()
        }
        for block_id, tiles in blocks.items()
    }
    return grouped, [list(group) for group in numbers]


def _segment_id(scenes: list[pystac.Item], content: list[Any]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
    days = sorted(scene_datetime(scene).strftime("%Y%m%d") for scene in scenes)
    return f"{days[0]}-{days[-1]}-{digest}" if days else f"empty-{digest}"
