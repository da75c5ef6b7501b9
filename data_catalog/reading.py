"""Reading a block: which scene every tile is taken from, and its pixels as reflectance.

Masks come first: they are small, and they decide which bands have to be read at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray

from data_catalog.assets import AssetWindow, read_assets, rectangles, union_of, window_of
from data_catalog.errors import ReadError, SensorError
from data_catalog.grid import BLOCK_TILES, Block, Tile, Zone
from data_catalog.harmonise import harmonise
from data_catalog.scenes import pass_of, scene_datetime, scene_epsg
from data_catalog.sensors import SceneBand, Sensor, resolve_band, resolve_mask

_MASK = "mask"

NOT_OBSERVED = "not observed"
"""How the reason starts of a tile that no scene has pixels of."""


@dataclass(frozen=True)
class TileObservation:
    """What became of one tile.

    Attributes:
        tile: The tile.
        state: ``valid`` or ``invalid``.
        reason: Why it is invalid; None if valid.
        moment: When the pixels were taken; None if invalid.
        clear_fraction: Share of clear pixels in the chosen (if invalid: the best) scenes.
        source_scenes: IDs of the scenes whose pixels it holds.
        considered_scenes: IDs of the scenes that were weighed up and need not be again.
    """

    tile: Tile
    state: str
    reason: str | None
    moment: datetime | None
    clear_fraction: float
    source_scenes: list[str]
    considered_scenes: list[str]


@dataclass
class BlockObservations:
    """The observations of a block.

    Attributes:
        block: The block.
        pixels: uint16 ``(64, band, y, x)`` as the sensor stores them, 0 where nodata; a tile's
            place is its ``block.position``.
        tiles: What became of every tile that was asked for.
        failures: Cause by ID of every scene that could not be read.
    """

    block: Block
    pixels: NDArray[np.uint16]
    tiles: list[TileObservation] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Choice:
    """The scenes of one pass that a tile would be taken from, in the order of filling."""

    pass_id: str
    scenes: tuple[pystac.Item, ...]
    clear_fraction: float

    @property
    def moment(self) -> datetime:
        """When the newest scene was taken: a mosaic is never older than a part of it."""
        return max(scene_datetime(scene) for scene in self.scenes)


def read_block(
    block: Block,
    candidates: dict[Tile, list[pystac.Item]],
    sensor: Sensor,
    bands: tuple[str, ...],
    profile: str,
    minimum_clear: float,
) -> BlockObservations:
    """Reads a block's tiles, each from the pass with the largest clear fraction.

    A scene that cannot be read is passed over and named in ``failures``; a tile that is left
    without enough clear ground for that reason is ``invalid`` with scene, asset and cause.

    Args:
        block: The block.
        candidates: For every tile wanted the scenes that may see it.
        sensor: The scenes' sensor.
        bands: Canonical names, in the order of the result.
        profile: Of the source catalogue.
        minimum_clear: Clear fraction below which a tile is invalid.
    """
    side = block.size // sensor.resolution
    shape = (BLOCK_TILES**2, len(bands), side, side)
    result = BlockObservations(block, np.zeros(shape, np.uint16))
    reader = _BlockReader(block.zone, sensor, bands, profile, result.failures)
    masks = reader.masks(candidates)
    waiting = list(candidates)
    while waiting:
        best = {tile: _best(tile, candidates[tile], masks, result.failures) for tile in waiting}
        chosen = {t: c for t, c in best.items() if c and c.clear_fraction >= minimum_clear}
        for tile in set(waiting) - set(chosen):
            result.tiles.append(_invalid(tile, best[tile], candidates[tile], result.failures))
        reader.read(chosen, result.pixels)
        waiting = []
        for tile, choice in chosen.items():
            if any(scene.id in result.failures for scene in choice.scenes):
                result.pixels[block.position(tile)] = 0
                waiting.append(tile)
            else:
                result.tiles.append(_valid(tile, choice, candidates[tile], result))
    result.tiles.sort(key=lambda observation: observation.tile)
    return result


@dataclass(frozen=True)
class _Mask:
    """A scene's mask over a tile: which pixels it observed, and which of them are clear."""

    observed: NDArray[np.bool_]
    clear: NDArray[np.bool_]


_Masks = dict[tuple[str, Tile], _Mask]


class _BlockReader:
    """Reads scenes' assets over tiles; remembers what fails."""

    def __init__(
        self,
        zone: Zone,
        sensor: Sensor,
        bands: tuple[str, ...],
        profile: str,
        failures: dict[str, str],
    ) -> None:
        self._zone, self._sensor, self._bands, self._profile = zone, sensor, bands, profile
        self._failures = failures

    def masks(self, candidates: dict[Tile, list[pystac.Item]]) -> _Masks:
        """Masks by scene ID and tile, of the scenes whose mask can be read."""
        mask = self._sensor.mask
        if mask is None:
            layers = self._layers(_tiles_of(candidates), self._bands[:1])
            seen = {(scene_id, tile): numbers > 0 for scene_id, _, tile, numbers in layers}
            return {key: _Mask(observed, observed) for key, observed in seen.items()}
        layers = self._layers(_tiles_of(candidates), [_MASK])
        return {
            (scene_id, tile): _Mask(values != mask.nodata, mask.clear(values))
            for scene_id, _, tile, values in layers
        }

    def read(self, choices: dict[Tile, _Choice], pixels: NDArray[np.uint16]) -> None:
        """Reads tiles into the pixels ``(64, band, y, x)`` of their block, scene upon scene."""
        places = {band: number for number, band in enumerate(self._bands)}
        for rank in range(max((len(choice.scenes) for choice in choices.values()), default=0)):
            scenes = {t: c.scenes[rank : rank + 1] for t, c in choices.items()}
            for _, band, tile, numbers in self._layers(_tiles_of(scenes), self._bands):
                place = pixels[tile.block.position(tile), places[band]]
                if rank == 0:
                    place[:] = numbers
                else:
                    np.copyto(place, numbers, where=place == 0)

    def _layers(
        self, tiles_of: list[tuple[pystac.Item, list[Tile]]], bands: Iterable[str]
    ) -> Iterator[tuple[str, str, Tile, NDArray[np.uint16]]]:
        """Scene ID, band (or the mask), tile and its numbers as they are stored."""
        jobs = []
        for scene, tiles in tiles_of:
            try:
                resolved = [self._resolved(scene, band) for band in bands]
            except SensorError as error:
                self._failures.setdefault(scene.id, str(error))
                continue
            for group in rectangles(tiles):
                bounds = union_of([tile.bounds for tile in group])
                for band, asset, native, how in resolved:
                    window = AssetWindow(
                        scene.id, asset, self._profile, self._zone, bounds, native, how
                    )
                    jobs.append((scene.id, band, group, window))
        found = read_assets([window for *_, window in jobs])
        for (scene_id, band, group, window), numbers in zip(jobs, found, strict=True):
            if isinstance(numbers, ReadError):
                self._failures.setdefault(scene_id, str(numbers))
                continue
            stored = self._stored(numbers, band, window)
            for tile in group:
                place = window_of(tile.bounds, window.bounds, self._resolution_of(band))
                yield scene_id, band, tile, stored[place]

    def _resolved(self, scene: pystac.Item, band: str) -> tuple[str, SceneBand, int, str]:
        sensor = self._sensor
        if band == _MASK:
            assert sensor.mask is not None
            return band, resolve_mask(scene, sensor.mask), sensor.mask.resolution, "nearest"
        asset = resolve_band(scene, sensor, band)
        return band, asset, sensor.bands[band].resolution, sensor.resampling

    def _stored(self, numbers: NDArray[Any], band: str, window: AssetWindow) -> NDArray[np.uint16]:
        if band == _MASK:
            return numbers.astype(np.uint16, copy=False)
        stored = harmonise(numbers, window.band, self._sensor)
        times = window.resolution // self._sensor.resolution
        return stored.repeat(times, 0).repeat(times, 1) if times > 1 else stored

    def _resolution_of(self, band: str) -> int:
        mask = self._sensor.mask
        return mask.resolution if mask and band == _MASK else self._sensor.resolution


def _tiles_of(
    scenes_of: Mapping[Tile, Iterable[pystac.Item]],
) -> list[tuple[pystac.Item, list[Tile]]]:
    """Every scene with the tiles that it is read for."""
    found: dict[str, tuple[pystac.Item, list[Tile]]] = {}
    for tile, scenes in scenes_of.items():
        for scene in scenes:
            found.setdefault(scene.id, (scene, []))[1].append(tile)
    return list(found.values())


def _best(
    tile: Tile, scenes: list[pystac.Item], masks: _Masks, failures: dict[str, str]
) -> _Choice | None:
    passes: dict[str, list[pystac.Item]] = {}
    for scene in scenes:
        if (scene.id, tile) in masks and scene.id not in failures:
            passes.setdefault(pass_of(scene), []).append(scene)
    choices = [_choice(tile, pass_id, group, masks) for pass_id, group in passes.items()]
    return max(
        (choice for choice in choices if choice.scenes),
        key=lambda c: (round(c.clear_fraction, 3), c.moment, c.pass_id),
        default=None,
    )


def _choice(tile: Tile, pass_id: str, scenes: list[pystac.Item], masks: _Masks) -> _Choice:
    observed = np.zeros_like(masks[scenes[0].id, tile].observed)
    clear = np.zeros_like(observed)
    used = []
    # The tile's own zone first: there pixels are copied, not resampled.
    for scene in sorted(scenes, key=lambda s: (not _is_of_zone(s, tile.zone), s.id)):
        mask = masks[scene.id, tile]
        adds = mask.observed & ~observed
        if adds.any():
            used.append(scene)
            observed |= adds
            clear |= adds & mask.clear
    return _Choice(pass_id, tuple(used), float(clear.mean()))


def _is_of_zone(scene: pystac.Item, zone: Zone) -> bool:
    # Landsat names the northern zone south of the equator too: it is the same projection.
    epsg = scene_epsg(scene)
    return epsg is not None and epsg // 1000 == 32 and epsg % 100 == zone.number


def _valid(
    tile: Tile, choice: _Choice, scenes: list[pystac.Item], result: BlockObservations
) -> TileObservation:
    return TileObservation(
        tile,
        "valid",
        None,
        choice.moment,
        choice.clear_fraction,
        [scene.id for scene in choice.scenes],
        [scene.id for scene in scenes if scene.id not in result.failures],
    )


def _invalid(
    tile: Tile, best: _Choice | None, scenes: list[pystac.Item], failures: dict[str, str]
) -> TileObservation:
    failed = [failures[scene.id] for scene in scenes if scene.id in failures]
    if failed:
        reason = f"unreadable: {'; '.join(failed)}"
    elif best is None:
        reason = f"{NOT_OBSERVED}: no scene has pixels here"
    else:
        names = ", ".join(scene.id for scene in best.scenes)
        reason = f"not clear: {best.clear_fraction:.2f} at best, in {names}"
    considered = [scene.id for scene in scenes if scene.id not in failures]
    fraction = best.clear_fraction if best else 0.0
    return TileObservation(tile, "invalid", reason, None, fraction, [], considered)
