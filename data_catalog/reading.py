"""Reading a block: which scene every tile is taken from, and its pixels as reflectance.

Masks come first: they are small, and they decide which bands have to be read at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray

from data_catalog.assets import Bounds, read_asset, union_of, window_of
from data_catalog.errors import ReadError, SensorError
from data_catalog.grid import BLOCK_TILES, Block, Tile, Zone
from data_catalog.harmonise import harmonise
from data_catalog.scenes import pass_of, scene_datetime, scene_epsg
from data_catalog.sensors import SceneBand, Sensor, resolve_band, resolve_mask

READ_THREADS = 8
"""Requests in flight for one block."""

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
        pixels: uint16 ``(64, band, y, x)`` as the sensor stores them, 0 where nodata; a tile's place
            is its ``block.position``.
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
    with ThreadPoolExecutor(READ_THREADS) as pool:
        reader = _BlockReader(block.zone, sensor, bands, profile, pool, result.failures)
        masks = reader.masks(block.bounds, _distinct(candidates.values()))
        waiting = list(candidates)
        while waiting:
            best = {t: _best(t, block, candidates[t], masks, result.failures) for t in waiting}
            chosen = {t: c for t, c in best.items() if c and c.clear_fraction >= minimum_clear}
            for tile in set(waiting) - set(chosen):
                result.tiles.append(_invalid(tile, best[tile], candidates[tile], result.failures))
            waiting = []
            for tiles in _by_pass(chosen).values():
                pixels = reader.tiles({tile: chosen[tile] for tile in tiles})
                for tile in tiles:
                    if tile in pixels:
                        result.pixels[block.position(tile)] = pixels[tile]
                        result.tiles.append(_valid(tile, chosen[tile], candidates[tile], result))
                    else:
                        waiting.append(tile)
    result.tiles.sort(key=lambda observation: observation.tile)
    return result


class _Mask:
    """A scene's mask over a block: which pixels it observed, and which of them are clear."""

    def __init__(self, observed: NDArray[np.bool_], clear: NDArray[np.bool_], resolution: int):
        self.observed, self.clear, self.resolution = observed, clear, resolution


class _BlockReader:
    """Reads assets in parallel; remembers what fails."""

    def __init__(
        self,
        zone: Zone,
        sensor: Sensor,
        bands: tuple[str, ...],
        profile: str,
        pool: ThreadPoolExecutor,
        failures: dict[str, str],
    ) -> None:
        self._zone, self._sensor, self._bands, self._profile = zone, sensor, bands, profile
        self._pool, self._failures = pool, failures

    def masks(self, bounds: Bounds, scenes: list[pystac.Item]) -> dict[str, _Mask]:
        """Masks by scene ID, of the scenes whose mask can be read."""
        jobs = {scene.id: partial(self._mask, scene, bounds) for scene in scenes}
        return self._all(jobs)

    def tiles(self, choices: dict[Tile, _Choice]) -> dict[Tile, NDArray[np.uint16]]:
        """Pixels ``(band, y, x)`` of tiles of one pass; without those whose scenes fail."""
        bounds = union_of([tile.bounds for tile in choices])
        scenes = _distinct([choice.scenes for choice in choices.values()])
        jobs = {
            (scene.id, band): partial(self._reflectance, scene, band, bounds)
            for scene in scenes
            for band in self._bands
        }
        layers = self._all(jobs)
        pixels = {}
        for tile, choice in choices.items():
            if any(scene.id in self._failures for scene in choice.scenes):
                continue
            window = window_of(tile.bounds, bounds, self._sensor.resolution)
            pixels[tile] = np.stack(
                [
                    _filled([layers[s.id, band][window] for s in choice.scenes])
                    for band in self._bands
                ]
            )
        return pixels

    def _all(self, jobs: Mapping[Any, Callable[[], Any]]) -> dict[Any, Any]:
        futures: dict[Any, Future[Any]] = {k: self._pool.submit(job) for k, job in jobs.items()}
        done = {}
        for key, future in futures.items():
            try:
                done[key] = future.result()
            except (ReadError, SensorError) as error:
                scene_id = key if isinstance(key, str) else key[0]
                self._failures.setdefault(scene_id, str(error))
        return done

    def _mask(self, scene: pystac.Item, bounds: Bounds) -> _Mask:
        mask = self._sensor.mask
        if mask is None:
            first = self._reflectance(scene, self._bands[0], bounds)
            return _Mask(first > 0, first > 0, self._sensor.resolution)
        asset = resolve_mask(scene, mask)
        values = self._read(scene, asset, bounds, mask.resolution, nodata=mask.nodata)
        whole = values.astype(np.uint16)
        return _Mask(whole != mask.nodata, mask.clear(whole), mask.resolution)

    def _reflectance(self, scene: pystac.Item, band: str, bounds: Bounds) -> NDArray[np.uint16]:
        sensor, asset = self._sensor, resolve_band(scene, self._sensor, band)
        native = sensor.bands[band].resolution
        numbers = self._read(
            scene, asset, bounds, native, nodata=asset.nodata, resampling=sensor.resampling
        )
        reflectance = harmonise(numbers, asset, sensor)
        times = native // sensor.resolution
        return reflectance.repeat(times, 0).repeat(times, 1) if times > 1 else reflectance

    def _read(
        self, scene: pystac.Item, asset: SceneBand, bounds: Bounds, resolution: int, **how: Any
    ) -> NDArray[np.float32]:
        return read_asset(scene.id, asset, self._profile, self._zone, bounds, resolution, **how)


def _best(
    tile: Tile,
    block: Block,
    scenes: list[pystac.Item],
    masks: dict[str, _Mask],
    failures: dict[str, str],
) -> _Choice | None:
    passes: dict[str, list[pystac.Item]] = {}
    for scene in scenes:
        if scene.id in masks and scene.id not in failures:
            passes.setdefault(pass_of(scene), []).append(scene)
    choices = [_choice(tile, block, pass_id, group, masks) for pass_id, group in passes.items()]
    return max(
        (choice for choice in choices if choice.scenes),
        key=lambda c: (round(c.clear_fraction, 3), c.moment, c.pass_id),
        default=None,
    )


def _choice(
    tile: Tile, block: Block, pass_id: str, scenes: list[pystac.Item], masks: dict[str, _Mask]
) -> _Choice:
    window = window_of(tile.bounds, block.bounds, masks[scenes[0].id].resolution)
    observed = np.zeros_like(masks[scenes[0].id].observed[window])
    clear = np.zeros_like(observed)
    used = []
    # The tile's own zone first: there pixels are copied, not resampled.
    for scene in sorted(scenes, key=lambda s: (not _is_of_zone(s, tile.zone), s.id)):
        adds = masks[scene.id].observed[window] & ~observed
        if adds.any():
            used.append(scene)
            observed |= adds
            clear |= adds & masks[scene.id].clear[window]
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


def _by_pass(chosen: dict[Tile, _Choice]) -> dict[str, list[Tile]]:
    groups: dict[str, list[Tile]] = {}
    for tile, choice in sorted(chosen.items()):
        groups.setdefault(choice.pass_id, []).append(tile)
    return groups


def _filled(layers: list[NDArray[np.uint16]]) -> NDArray[np.uint16]:
    filled = layers[0].copy()
    for layer in layers[1:]:
        np.copyto(filled, layer, where=filled == 0)
    return filled


def _distinct(groups: Iterable[Iterable[pystac.Item]]) -> list[pystac.Item]:
    return list({scene.id: scene for group in groups for scene in group}.values())
