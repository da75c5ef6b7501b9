"""The map of what changed in new versions of code tables: which tiles, and how many bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data_catalog.catalogue import Catalogue
from data_catalog.grid import corners_of
from data_catalog.pictures import FAINT, INK, PAPER, font
from data_catalog.query_tables import squares_of

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
    corners = _corners(changes.tiles["tile_id"])
    view = _View.around(corners.reshape(-1, 2))
    squares = view.pixels(corners.reshape(-1, 2)).reshape(corners.shape)
    flips = changes.tiles["flipped_bits"].to_numpy()
    most = float(np.nanmax(flips, initial=1.0))
    canvas = np.full((HEADER + view.height + LEGEND, WIDTH, 3), PAPER, np.uint8)
    canvas[_covered(view.boxes(changes.before), canvas.shape[:2])] = BEFORE
    is_large = np.ptp(squares[..., 0], axis=1) > SMALLEST
    _paint_dots(canvas, squares[~is_large].mean(axis=1), flips[~is_large], most)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    _draw_squares(draw, squares[is_large], flips[is_large], most)
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

    def boxes(self, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
        """Left, top, right and bottom in the picture of west, south, east and north."""
        return np.hstack([self.pixels(degrees[:, [0, 3]]), self.pixels(degrees[:, [2, 1]])])


def _corners(tile_ids: pd.Series[str]) -> NDArray[np.float64]:
    """Corners of tiles ``(n, 4, 2)``: longitude and latitude, degrees."""
    corners = np.empty((len(tile_ids), 4, 2))
    for one in squares_of(pa.array(tile_ids, pa.string())):
        corners[one.places] = corners_of(one.zone, one.columns, one.rows, one.size)
    return corners


def _covered(boxes: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which pixels boxes cover: there may be millions, most of them outside."""
    height, width = shape
    edges = np.floor(boxes[boxes[:, 2] > boxes[:, 0]]).astype(int)
    # At least a pixel each; boxes that touch leave no gap.
    edges[:, 2:] = np.maximum(edges[:, 2:], edges[:, :2] + 1)
    left, top, right, bottom = edges.clip(0, [width, height, width, height]).T
    # How many more boxes cover a pixel than the one to its left, than in the row above.
    steps = np.zeros((height + 1, width + 1), np.int64)
    for y, x, step in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(steps.reshape(-1), y * (width + 1) + x, step)
    return steps.cumsum(0).cumsum(1)[:-1, :-1] > 0


def _paint_dots(
    canvas: NDArray[np.uint8], middles: NDArray[np.float64], flips: NDArray[np.float64], most: float
) -> None:
    """Paints tiles that are too small to be seen larger than they are."""
    height, width, _ = canvas.shape
    x, y = middles.astype(int).T
    # Of what changed most every pixel is seen, and what appeared is below everything else.
    painted = np.full(height * width, -np.inf)
    for down, right in np.ndindex(SMALLEST, SMALLEST):
        places = (y + down - SMALLEST // 2) * width + x + right - SMALLEST // 2
        np.maximum.at(painted, places, np.nan_to_num(flips, nan=-1.0))
    seen = np.flatnonzero(painted > -np.inf)
    found = painted[seen]
    canvas.reshape(-1, 3)[seen] = _colours(np.where(found < 0, np.nan, found), most)


def _draw_squares(
    draw: ImageDraw.ImageDraw,
    squares: NDArray[np.float64],
    flips: NDArray[np.float64],
    most: float,
) -> None:
    # What changed most is drawn last: nothing hides it.
    order = np.argsort(np.nan_to_num(flips, nan=-1.0))
    corners, colours = squares[order].reshape(-1, 8).tolist(), _colours(flips[order], most).tolist()
    for square, colour in zip(corners, colours, strict=True):
        draw.polygon(square, fill=tuple(colour), outline=PAPER)


def _colours(flips: NDArray[np.float64], most: float) -> NDArray[np.uint8]:
    """Colours ``(n, 3)`` of numbers of flipped bits, NaN for tiles that appeared."""
    places = (len(FLIPPED) - 1) * (flips - 1) / max(1.0, most - 1)
    bands = [np.interp(places, range(len(FLIPPED)), band) for band in FLIPPED.T]
    colours = np.stack(bands, axis=1)
    colours[flips == 0] = SAME
    colours[np.isnan(flips)] = NEW
    return colours.astype(np.uint8)


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
    for step, colour in enumerate(_colours(np.linspace(1, max(1, most), 120), most).tolist()):
        draw.line((x + step, y + 30, x + step, y + 46), fill=tuple(colour))
    draw.text((x + 130, y + 29), f"{most} of {bits} bits flipped", INK, font(15))


def _degrees(value: float, names: str) -> str:
    return f"{abs(value):.2f}° {names[0] if value >= 0 else names[1]}"
