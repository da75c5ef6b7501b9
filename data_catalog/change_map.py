"""The map of what changed in new versions of code tables: which tiles, and how many bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pystac
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data_catalog.catalogue import Catalogue
from data_catalog.grid import footprints, parse_tile_id
from data_catalog.pictures import FAINT, INK, PAPER, font

WIDTH, MARGIN, HEADER, LEGEND = 960, 24, 70, 78
TALLEST = 900
"""Pixels that the map itself is high at the most."""

BEFORE, SAME, NEW = (221, 221, 216), (150, 190, 170), (0, 114, 178)
FLIPPED = np.array([(254, 217, 118), (253, 141, 60), (227, 26, 28), (110, 0, 40)], float)
"""Colours from one flipped bit to as many as flipped most."""

SMALLEST = 3
"""Pixels that a changed tile has on a side at the least, to be seen."""

KM_PER_DEGREE = 111.32


@dataclass(frozen=True)
class Changes:
    """What differs from the versions before.

    Attributes:
        tiles: ``tile_id`` and ``flipped_bits`` of the tiles with a new row: NaN where the tile had
            no code before, 0 where its newer observation has the same code.
        bits: Length of the codes.
        before: Bounding boxes ``(n, 4)`` of all tiles: west, south, east, north, degrees.
    """

    tiles: pd.DataFrame
    bits: int
    before: NDArray[np.float64]

    @property
    def most_flipped(self) -> pd.DataFrame:
        """The tiles whose codes changed, those first that changed most."""
        flipped = self.tiles[self.tiles["flipped_bits"] > 0]
        return flipped.sort_values(["flipped_bits", "tile_id"], ascending=[False, True])


def read_changes(catalogue: Catalogue, items: Sequence[pystac.Item]) -> Changes:
    """What some versions of code tables of one model brought.

    Args:
        catalogue: Holds them.
        items: One or more; of a first version every tile is new.
    """
    tables, boxes = [], []
    for item in items:
        path = catalogue.asset_path(item, "embeddings")
        if "changes" in item.assets:
            changes = pq.read_table(catalogue.asset_path(item, "changes")).to_pandas()
        else:
            changes = pq.read_table(path, columns=["tile_id"]).to_pandas()
            changes["flipped_bits"] = np.nan
        tables.append(changes[["tile_id", "flipped_bits"]])
        box = pq.read_table(path, columns=["bbox"])["bbox"].combine_chunks()
        sides = [box.field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")]
        boxes.append(np.stack(sides, axis=1))
    bits = items[0].properties["rshash:bits"]
    tiles = pd.concat(tables, ignore_index=True)
    return Changes(tiles.astype({"flipped_bits": float}), bits, np.concatenate(boxes))


def draw_changes(changes: Changes, title: str) -> Image.Image:
    """Draws the tiles that changed, and those around them.

    Args:
        changes: At least one tile.
        title: Stands above the map.
    """
    squares = footprints([parse_tile_id(tile_id) for tile_id in changes.tiles["tile_id"]])
    rings = shapely.get_coordinates(squares).reshape(len(squares), -1, 2)[:, :-1]
    view = _View.around(rings.reshape(-1, 2))
    picture = Image.new("RGB", (WIDTH, HEADER + view.height + LEGEND), PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_before(picture, view, changes.before)
    flips = changes.tiles["flipped_bits"].to_numpy()
    most = float(np.nanmax(flips, initial=1.0))
    # What changed most is drawn last: nothing hides it.
    for row in np.argsort(np.nan_to_num(flips, nan=-1.0)):
        _square(draw, view.pixels(rings[row]), _colour(float(flips[row]), most))
    edge = (MARGIN, HEADER, WIDTH - MARGIN, HEADER + view.height)
    _blank_outside(draw, picture.size, edge)
    draw.rectangle(edge, outline=FAINT)
    draw.text((MARGIN, 12), title, INK, font(24))
    draw.text((MARGIN, 44), view.description, FAINT, font(14))
    _draw_scale(draw, view)
    _draw_legend(draw, picture.height - LEGEND + 14, flips, int(most), changes.bits)
    return picture


@dataclass(frozen=True)
class _View:
    """The part of the world that is shown: degrees, and pixels per degree."""

    west: float
    north: float
    scale: tuple[float, float]
    height: int
    description: str

    @classmethod
    def around(cls, corners: NDArray[np.float64]) -> _View:
        lon, lat = corners[:, 0], corners[:, 1]
        lon = np.where(lon < 0, lon + 360, lon) if np.ptp(lon) > 180 else lon
        narrowing = max(0.1, float(np.cos(np.radians((lat.min() + lat.max()) / 2))))
        # In degrees of latitude; a few tiles around show where it is.
        width, height = np.ptp(lon) * narrowing, np.ptp(lat)
        pad = 0.06 * max(width, height) + 0.01
        width, height = width + 2 * pad, max(height + 2 * pad, 0.3 * (width + 2 * pad))
        across = WIDTH - 2 * MARGIN
        per_degree = min(across / width, TALLEST / height)
        middle_lat = (lat.min() + lat.max()) / 2
        middle_lon = ((lon.min() + lon.max()) / 2 + 180) % 360 - 180
        down = int(per_degree * height)
        return cls(
            middle_lon - across / per_degree / narrowing / 2,
            middle_lat + down / per_degree / 2,
            (per_degree * narrowing, per_degree),
            down,
            f"around {_degrees(middle_lat, 'NS')}, {_degrees(middle_lon, 'EW')}",
        )

    def pixels(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where places ``(n, 2)``, longitude and latitude, are in the picture."""
        east = (places[:, 0] - self.west + 180) % 360 - 180
        middle = (WIDTH - 2 * MARGIN) / self.scale[0] / 2
        east = np.where(east < middle - 180, east + 360, east)
        x = MARGIN + east * self.scale[0]
        return np.stack([x, HEADER + (self.north - places[:, 1]) * self.scale[1]], axis=1)


def _draw_before(picture: Image.Image, view: _View, boxes: NDArray[np.float64]) -> None:
    """Paints all tiles grey, by their boxes: there may be millions, most of them outside."""
    corners = (view.pixels(boxes[:, [0, 3]]), view.pixels(boxes[:, [2, 1]]))
    (left, top), (right, bottom) = (corner.T for corner in corners)
    bottom_edge = picture.height - LEGEND
    inside = (right > MARGIN) & (left < WIDTH - MARGIN) & (bottom > HEADER) & (top < bottom_edge)
    rows = np.flatnonzero(inside & (right > left))
    if len(rows) and np.median(right[rows] - left[rows]) < 1.5:
        canvas = np.asarray(picture).copy()
        x = np.clip((left[rows] + right[rows]) / 2, 0, WIDTH - 1).astype(int)
        y = np.clip((top[rows] + bottom[rows]) / 2, 0, picture.height - 1).astype(int)
        canvas[y, x] = BEFORE
        picture.paste(Image.fromarray(canvas))
        return
    draw = ImageDraw.Draw(picture)
    for row in rows:
        draw.rectangle((left[row], top[row], right[row] - 1, bottom[row] - 1), fill=BEFORE)


def _square(draw: ImageDraw.ImageDraw, ring: NDArray[np.float64], colour: Any) -> None:
    if np.ptp(ring[:, 0]) > SMALLEST:
        draw.polygon([tuple(corner) for corner in ring], fill=colour, outline=PAPER)
    else:
        x, y = ring.mean(axis=0)
        draw.rectangle((x - 1, y - 1, x - 2 + SMALLEST, y - 2 + SMALLEST), fill=colour)


def _colour(flipped: float, most: float) -> tuple[int, int, int]:
    if np.isnan(flipped):
        return NEW
    if flipped == 0:
        return SAME
    place = (len(FLIPPED) - 1) * (flipped - 1) / max(1.0, most - 1)
    red, green, blue = (np.interp(place, range(4), FLIPPED[:, band]) for band in range(3))
    return int(red), int(green), int(blue)


def _blank_outside(draw: ImageDraw.ImageDraw, size: tuple[int, int], edge: tuple[int, ...]) -> None:
    (width, height), (left, top, right, bottom) = size, edge
    draw.rectangle((0, 0, width, top), fill=PAPER)
    draw.rectangle((0, bottom, width, height), fill=PAPER)
    draw.rectangle((0, 0, left, height), fill=PAPER)
    draw.rectangle((right, 0, width, height), fill=PAPER)


def _draw_scale(draw: ImageDraw.ImageDraw, view: _View) -> None:
    per_km = view.scale[1] / KM_PER_DEGREE
    lengths = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]
    km = max([one for one in lengths if one * per_km <= 240], default=1)
    right, y = WIDTH - MARGIN, HEADER - 10
    draw.line((right - km * per_km, y, right, y), fill=INK, width=3)
    draw.text((right, y - 6), f"{km:,} km", INK, font(14), anchor="rb")


def _draw_legend(
    draw: ImageDraw.ImageDraw, y: int, flips: NDArray[np.float64], most: int, bits: int
) -> None:
    appeared, same, flipped = (int(n.sum()) for n in (np.isnan(flips), flips == 0, flips > 0))
    entries = [
        (NEW, f"{appeared:,} appeared", appeared),
        (SAME, f"{same:,} seen anew, code as before", same),
        (BEFORE, "not seen anew", 1),
    ]
    x = MARGIN
    for colour, text in [entry[:2] for entry in entries if entry[2]]:
        draw.rectangle((x, y, x + 16, y + 16), fill=colour)
        draw.text((x + 24, y - 1), text, INK, font(15))
        x += 48 + int(draw.textlength(text, font(15)))
    if not flipped:
        return
    text = f"{flipped:,} with a new code: 1"
    draw.text((MARGIN, y + 29), text, INK, font(15))
    x = MARGIN + 10 + int(draw.textlength(text, font(15)))
    for step in range(120):
        colour = _colour(1 + step / 119 * max(0, most - 1), most)
        draw.line((x + step, y + 30, x + step, y + 46), fill=colour)
    draw.text((x + 130, y + 29), f"{most} of {bits} bits flipped", INK, font(15))


def _degrees(value: float, names: str) -> str:
    return f"{abs(value):.2f}° {names[0] if value >= 0 else names[1]}"
