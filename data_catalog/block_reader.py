"""Reading what scenes show of a block's tiles: masks first, then the bands of what is chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray

from data_catalog.assets import AssetWindow, read_assets, rectangles, union_of, window_of
from data_catalog.errors import ReadError, SensorError
from data_catalog.grid import Tile, Zone
from data_catalog.harmonise import harmonise
from data_catalog.scenes import pass_of, scene_datetime, scene_epsg
from data_catalog.sensors import SceneBand, Sensor, resolve_band, resolve_mask

_MASK = "mask"


@dataclass(frozen=True)
class PassOverTile:
    """What one pass shows of a tile.

    Attributes:
        pass_id: The pass.
        scenes: Its scenes that the tile is taken from, in the order of filling.
        clear: Which pixels of the mask's resolution are clear.
    """

    pass_id: str
    scenes: tuple[pystac.Item, ...]
    clear: NDArray[np.bool_]

    @property
    def clear_fraction(self) -> float:
        """Share of the tile's pixels that are clear."""
        return float(self.clear.mean())

    @property
    def moment(self) -> datetime:
        """When the newest scene was taken: a mosaic is never older than a part of it."""
        return max(scene_datetime(scene) for scene in self.scenes)


@dataclass(frozen=True)
class Mask:
    """A scene's mask over a tile: which pixels it observed, and which of them are clear."""

    observed: NDArray[np.bool_]
    clear: NDArray[np.bool_]


Masks = dict[tuple[str, Tile], Mask]


class BlockReader:
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

    def masks(self, candidates: dict[Tile, list[pystac.Item]]) -> Masks:
        """Masks by scene ID and tile, of the scenes whose mask can be read."""
        mask = self._sensor.mask
        if mask is None:
            layers = self._layers(_tiles_of(candidates), self._bands[:1])
            seen = {(scene_id, tile): numbers > 0 for scene_id, _, tile, numbers in layers}
            return {key: Mask(observed, observed) for key, observed in seen.items()}
        layers = self._layers(_tiles_of(candidates), [_MASK])
        return {
            (scene_id, tile): Mask(values != mask.nodata, mask.clear(values))
            for scene_id, _, tile, values in layers
        }

    def read(self, choices: Mapping[Tile, PassOverTile], pixels: NDArray[np.uint16]) -> None:
        """Reads tiles into the zeros ``(64, band, y, x)`` of their block, scene upon scene."""
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


def passes_over(tile: Tile, scenes: Iterable[pystac.Item], masks: Masks) -> list[PassOverTile]:
    """What the passes show of a tile whose scenes' masks are given."""
    groups: dict[str, list[pystac.Item]] = {}
    for scene in scenes:
        if (scene.id, tile) in masks:
            groups.setdefault(pass_of(scene), []).append(scene)
    found = [_pass_over(tile, pass_id, group, masks) for pass_id, group in groups.items()]
    return [one for one in found if one.scenes]


def _pass_over(tile: Tile, pass_id: str, scenes: list[pystac.Item], masks: Masks) -> PassOverTile:
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
    return PassOverTile(pass_id, tuple(used), clear)


def _is_of_zone(scene: pystac.Item, zone: Zone) -> bool:
    # Landsat names the northern zone south of the equator too: it is the same projection.
    epsg = scene_epsg(scene)
    return epsg is not None and epsg // 1000 == 32 and epsg % 100 == zone.number
