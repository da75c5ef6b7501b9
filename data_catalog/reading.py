"""Reading a block: which scenes every tile is taken from, and its pixels as they are stored.

Masks come first: they are small, and they decide which bands have to be read at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Literal

import numpy as np
import pystac
from numpy.typing import NDArray

from data_catalog.block_reader import BlockReader, Masks, PassOverTile, passes_over
from data_catalog.grid import BLOCK_TILES, Block, Tile
from data_catalog.sensors import Sensor

Composite = Literal["best", "median"]

MEDIAN_TILES = 8
"""Tiles whose passes are in memory at once."""

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


def read_block(
    block: Block,
    candidates: dict[Tile, list[pystac.Item]],
    sensor: Sensor,
    bands: tuple[str, ...],
    profile: str,
    minimum_clear: float,
    composite: Composite = "best",
) -> BlockObservations:
    """Reads a block's tiles.

    A scene that cannot be read is passed over and named in ``failures``; a tile that is left
    without enough clear ground for that reason is ``invalid`` with scene, asset and cause.

    Args:
        block: The block.
        candidates: For every tile wanted the scenes that may see it.
        sensor: The scenes' sensor.
        bands: Canonical names, in the order of the result.
        profile: Of the source catalogue.
        minimum_clear: Clear fraction below which a tile is invalid.
        composite: ``best`` takes every tile from the pass with the largest clear fraction, of equal
            ones the newest; ``median`` takes every pixel's median over the passes that saw it
            clear, and the clear fraction is the share of pixels that any of them did.
    """
    side = block.size // sensor.resolution
    shape = (BLOCK_TILES**2, len(bands), side, side)
    result = BlockObservations(block, np.zeros(shape, np.uint16))
    reader = BlockReader(block.zone, sensor, bands, profile, result.failures)
    masks = reader.masks(candidates)
    if composite == "best":
        _read_best(reader, candidates, masks, minimum_clear, result)
    else:
        for tiles in _in_groups(candidates, MEDIAN_TILES):
            some = {tile: candidates[tile] for tile in tiles}
            _read_median(reader, some, masks, minimum_clear, result)
    result.tiles.sort(key=lambda observation: observation.tile)
    return result


def _read_best(
    reader: BlockReader,
    candidates: dict[Tile, list[pystac.Item]],
    masks: Masks,
    minimum_clear: float,
    result: BlockObservations,
) -> None:
    failures, waiting = result.failures, list(candidates)
    empty: set[tuple[Tile, str]] = set()  # passes whose bands lack what their masks promise
    while waiting:
        best = {
            tile: _best(
                one
                for one in _readable(tile, candidates, masks, failures)
                if (tile, one.pass_id) not in empty
            )
            for tile in waiting
        }
        chosen = {t: c for t, c in best.items() if c and c.clear_fraction >= minimum_clear}
        for tile in set(waiting) - set(chosen):
            seen = [found] if (found := best[tile]) else []
            result.tiles.append(_invalid(tile, seen, candidates[tile], failures))
        reader.read(chosen, result.pixels)
        waiting = []
        for tile, choice in chosen.items():
            pixels = result.pixels[result.block.position(tile)]
            if any(scene.id in failures for scene in choice.scenes):
                pixels[:] = 0
                waiting.append(tile)
            elif not pixels.any():
                empty.add((tile, choice.pass_id))
                waiting.append(tile)
            else:
                result.tiles.append(_valid(tile, [choice], candidates[tile], failures))


def _read_median(
    reader: BlockReader,
    candidates: dict[Tile, list[pystac.Item]],
    masks: Masks,
    minimum_clear: float,
    result: BlockObservations,
) -> None:
    failures = result.failures
    while True:
        failed_before = len(failures)
        passes = {tile: _readable(tile, candidates, masks, failures) for tile in candidates}
        enough = {t: p for t, p in passes.items() if p and _clear_fraction(p) >= minimum_clear}
        layers = _clear_layers(reader, enough, result.pixels.shape)
        if len(failures) == failed_before:
            break
    for tile, scenes in candidates.items():
        if tile in enough and (pixels := median(np.stack(layers[tile]))).any():
            result.pixels[result.block.position(tile)] = pixels
            result.tiles.append(_valid(tile, passes[tile], scenes, failures))
        else:
            seen = [] if tile in enough else passes[tile]
            result.tiles.append(_invalid(tile, seen, scenes, failures))


def _clear_layers(
    reader: BlockReader, passes: dict[Tile, list[PassOverTile]], shape: tuple[int, ...]
) -> dict[Tile, list[NDArray[np.uint16]]]:
    """What each pass saw of a tile, 0 where it was not clear."""
    layers: dict[Tile, list[NDArray[np.uint16]]] = {tile: [] for tile in passes}
    for rank in range(max(map(len, passes.values()), default=0)):
        chosen = {tile: found[rank] for tile, found in passes.items() if rank < len(found)}
        pixels = np.zeros(shape, np.uint16)
        reader.read(chosen, pixels)
        for tile, choice in chosen.items():
            layers[tile].append(_clear_pixels(pixels[tile.block.position(tile)], choice))
    return layers


def median(layers: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The median of numbers over the first axis, those that are 0 left out; 0 where all are.

    Args:
        layers: uint16 ``(n, …)``.

    Returns:
        uint16; of an even number of values the mean of the middle two, halves rounded up.
    """
    ordered, seen = np.sort(layers, axis=0), np.count_nonzero(layers, axis=0)
    # Zeros come first.
    lower = len(layers) - seen + (seen - 1) // 2
    upper = np.minimum(len(layers) - seen + seen // 2, len(layers) - 1)
    middle = (np.take_along_axis(ordered, at[None], 0)[0] for at in (lower, upper))
    low, high = (values.astype(np.uint32) for values in middle)
    return np.where(seen > 0, (low + high + 1) // 2, 0).astype(np.uint16)


def _readable(
    tile: Tile,
    candidates: dict[Tile, list[pystac.Item]],
    masks: Masks,
    failures: dict[str, str],
) -> list[PassOverTile]:
    readable = [scene for scene in candidates[tile] if scene.id not in failures]
    return passes_over(tile, readable, masks)


def _best(passes: Iterable[PassOverTile]) -> PassOverTile | None:
    return max(
        passes, key=lambda p: (round(p.clear_fraction, 3), p.moment, p.pass_id), default=None
    )


def _clear_fraction(passes: list[PassOverTile]) -> float:
    return float(np.logical_or.reduce([p.clear for p in passes]).mean()) if passes else 0.0


def _clear_pixels(pixels: NDArray[np.uint16], choice: PassOverTile) -> NDArray[np.uint16]:
    times = pixels.shape[-1] // choice.clear.shape[-1]
    clear = choice.clear.repeat(times, 0).repeat(times, 1) if times > 1 else choice.clear
    return np.where(clear, pixels, np.uint16(0))


def _valid(
    tile: Tile, used: list[PassOverTile], scenes: list[pystac.Item], failures: dict[str, str]
) -> TileObservation:
    return TileObservation(
        tile,
        "valid",
        None,
        max(one.moment for one in used),
        _clear_fraction(used),
        [scene.id for one in used for scene in one.scenes],
        [scene.id for scene in scenes if scene.id not in failures],
    )


def _invalid(
    tile: Tile, seen: list[PassOverTile], scenes: list[pystac.Item], failures: dict[str, str]
) -> TileObservation:
    failed = [failures[scene.id] for scene in scenes if scene.id in failures]
    fraction = _clear_fraction(seen)
    if failed:
        reason = f"unreadable: {'; '.join(failed)}"
    elif not seen:
        reason = f"{NOT_OBSERVED}: no scene has pixels here"
    else:
        names = ", ".join(scene.id for one in seen for scene in one.scenes)
        reason = f"not clear: {fraction:.2f} at best, in {names}"
    considered = [scene.id for scene in scenes if scene.id not in failures]
    return TileObservation(tile, "invalid", reason, None, fraction, [], considered)


def _in_groups(tiles: Iterable[Tile], size: int) -> Iterator[list[Tile]]:
    remaining = iter(tiles)
    while group := list(islice(remaining, size)):
        yield group
