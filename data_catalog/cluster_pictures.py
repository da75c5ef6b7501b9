"""A picture of what pseudo-labels mean: the most typical tiles of every cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data_catalog.catalogue import Catalogue
from data_catalog.licences import attribution, source_years
from data_catalog.observations import current_observations, read_tiles
from data_catalog.pictures import (
    FAINT,
    INK,
    PAPER,
    TRUE_COLOUR,
    UNSEEN,
    Stretch,
    font,
    in_colour,
    tile_picture,
)
from data_catalog.segments import bands_of, published_pixels
from data_catalog.sensors import get_sensor

MARGIN, HEADER, FOOTER = 28, 62, 34
BATCH_TILES = 64


@dataclass(frozen=True)
class Layout:
    """How clusters are laid out on the page.

    Attributes:
        clusters: The most that are shown.
        columns: Clusters side by side.
        examples: Tiles of each.
        cell: Side of a tile, pixels.
        caption: Height of a cluster's caption, pixels.
    """

    clusters: int
    columns: int
    examples: int
    cell: int
    caption: int


LAYOUTS = (
    Layout(16, columns=2, examples=6, cell=128, caption=30),
    Layout(64, columns=4, examples=5, cell=88, caption=26),
    Layout(256, columns=8, examples=4, cell=64, caption=22),
)


def layout_for(clusters: int) -> Layout:
    """The roomiest layout that holds the clusters; the densest shows the largest of more."""
    return next((one for one in LAYOUTS if clusters <= one.clusters), LAYOUTS[-1])


def typical_tiles(
    tile_ids: Sequence[str], probabilities: NDArray[np.float32], count: int
) -> list[list[str]]:
    """The tiles that each cluster is most probable for, among those that no other is more for.

    Args:
        tile_ids: The labelled tiles.
        probabilities: float32 ``(tiles, clusters)``.
        count: At most this many of each cluster.

    Returns:
        Tile IDs by cluster, the most probable first, ties by tile ID.
    """
    cluster, highest = probabilities.argmax(1), probabilities.max(1)
    order = np.lexsort((np.asarray(tile_ids), -highest, cluster))
    starts = np.searchsorted(cluster[order], np.arange(probabilities.shape[1] + 1))
    return [
        [tile_ids[i] for i in order[start : min(start + count, end)]]
        for start, end in pairwise(starts)
    ]


def cluster_picture(
    catalogue: Catalogue, sensor: str, tile_ids: Sequence[str], probabilities: NDArray[np.float32]
) -> Image.Image:
    """Draws the most typical tiles of every cluster, all in one stretch, the largest cluster first.

    Tiles are in colour where they have the sensor's bands for pictures, else in grey.

    Args:
        catalogue: Holds the tiles' pixels.
        sensor: ID of the sensor that shows them.
        tile_ids: The labelled tiles.
        probabilities: float32 ``(tiles, clusters)``.
    """
    sizes = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1])
    used = int((sizes > 0).sum())
    layout = layout_for(used)
    order = np.argsort(-sizes, kind="stable")[: min(used, layout.clusters)]
    examples = typical_tiles(tile_ids, probabilities, layout.examples)
    shown = [tile_id for k in order for tile_id in examples[k]]
    observations = current_observations(catalogue, sensor).set_index("tile_id", drop=False)
    observed = observations.loc[observations.index.intersection(shown)]
    bands = _shown_bands(catalogue, sensor, observed)
    pixels = _small_tiles(catalogue, sensor, observed, bands, layout.cell)
    credit = attribution(source_years(sensor, observed["datetime"]))
    clusters = [(int(k), float(sizes[k] / len(tile_ids)), examples[k]) for k in order]
    title = f"{len(sizes)} clusters of {len(tile_ids):,} tiles"
    if used < len(sizes):
        title += f", {len(sizes) - used} of them empty"
    if len(order) < used:
        title += f": the largest {len(order)}"
    return draw_clusters(clusters, pixels, layout, title, credit, bands == TRUE_COLOUR)


def draw_clusters(
    clusters: Sequence[tuple[int, float, list[str]]],
    pixels: dict[str, NDArray[np.float32]],
    layout: Layout,
    title: str,
    credit: str,
    true_colour: bool = True,
) -> Image.Image:
    """Draws clusters.

    Args:
        clusters: Number, share of all tiles and typical tiles of each.
        pixels: Pixels by tile ID, float32 ``(3, y, x)``, NaN where unseen; a tile that is not
            there is drawn as unseen.
        layout: How they are laid out.
        title: Stands above them.
        credit: Attribution of the pixels.
        true_colour: Whether the pixels are reflectance of red, green and blue.
    """
    cell, gap = layout.cell, max(2, layout.cell // 32)
    card_width = layout.examples * (cell + gap) - gap
    step_x, step_y = card_width + cell // 2, cell + layout.caption + cell // 5
    columns = min(layout.columns, len(clusters))
    width = max(640, 2 * MARGIN + columns * step_x - cell // 2)
    height = HEADER + -(-len(clusters) // columns) * step_y + FOOTER
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 18), "What the pseudo-labels look like", INK, font(26))
    draw.text((width - MARGIN, 26), title, FAINT, font(17), anchor="ra")
    unseen = np.full((3, 1, 1), np.nan, np.float32)
    stretch = Stretch.of(_pixels_of(pixels), true_colour)
    for i, (number, share, tile_ids) in enumerate(clusters):
        x, y = MARGIN + i % columns * step_x, HEADER + i // columns * step_y
        size = layout.caption * 3 // 5
        draw.text((x, y), f"cluster {number}", INK, font(size))
        draw.text((x + card_width, y), f"{share:.1%} of tiles", FAINT, font(size), anchor="ra")
        for j, tile_id in enumerate(tile_ids):
            picture = tile_picture(pixels.get(tile_id, unseen), stretch, cell)
            left, top = x + j * (cell + gap), y + layout.caption
            page.paste(picture, (left, top))
            # Clouds and snow are as bright as the paper.
            draw.rectangle([left, top, left + cell - 1, top + cell - 1], outline=UNSEEN)
    draw.text((MARGIN, height - FOOTER + 8), credit, FAINT, font(13))
    return page


def _shown_bands(catalogue: Catalogue, sensor: str, observed: pd.DataFrame) -> tuple[str, ...]:
    held = [
        set(bands_of(published_pixels(catalogue, sensor, segment_id)))
        for segment_id in observed["segment_id"].unique()
    ]
    wanted = get_sensor(sensor).picture_bands
    common = set.intersection(*held) if held else set(wanted)
    return wanted if common.issuperset(wanted) else (sorted(common)[0],)


def _small_tiles(
    catalogue: Catalogue, sensor: str, observed: pd.DataFrame, bands: tuple[str, ...], side: int
) -> dict[str, NDArray[np.float32]]:
    """Tiles in colour by ID, averaged down to about a side: all in full would be much."""
    small: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(observed), BATCH_TILES):
        batch = observed.iloc[start : start + BATCH_TILES]
        tiles = in_colour(_averaged(read_tiles(catalogue, sensor, batch, bands), side))
        small.update(zip(batch["tile_id"], tiles, strict=True))
    return small


def _averaged(tiles: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Means of the observed pixels of squares, for tiles ``(n, band, y, x)``; NaN of none."""
    n, bands, height, width = tiles.shape
    by = max(1, width // side)
    cut = tiles[:, :, : height // by * by, : width // by * by]
    squares = cut.reshape(n, bands, height // by, by, width // by, by)
    seen = np.isfinite(squares).sum((3, 5))
    total = np.nansum(squares, (3, 5))
    return np.divide(total, seen, out=np.full_like(total, np.nan), where=seen > 0)


def _pixels_of(pixels: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    flat = [tile.reshape(3, -1) for tile in pixels.values()]
    joined = np.concatenate(flat, axis=1) if flat else np.empty((3, 0), np.float32)
    return joined[None, :, :, None]
