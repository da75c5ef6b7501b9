"""Pictures of tiles in colour, and the retrieval sheet: a tile and the tiles most like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from data_catalog.catalogue import Catalogue
from data_catalog.errors import QueryError
from data_catalog.licences import attribution, source_years
from data_catalog.observations import current_observations, read_tiles
from data_catalog.query import PublishedCodes
from data_catalog.query_filters import Filters
from data_catalog.query_search import NO_FILTERS
from data_catalog.sensors import get_sensor

TRUE_COLOUR = ("red", "green", "blue")

DARKEST, BRIGHTEST = 0.5, 99.5
"""Percentiles that become black and white."""

CLOUD = 0.3
"""Ground is rarely brighter in all bands: such pixels set the stretch only as a majority."""

SMALLEST_SPAN = 0.08
"""Reflectance between black and white at the least: noise over water is not drawn as structure."""

GAMMA = 1.5

COLUMNS = 5
CELL, GAP, CAPTION, MARGIN = 224, 18, 46, 30
HEADER, FOOTER = 64, 30
INK, FAINT, PAPER, UNSEEN = (28, 32, 36), (110, 118, 126), (252, 252, 250), (190, 190, 190)
FRAME = (196, 78, 28)


@dataclass(frozen=True)
class Stretch:
    """How pixels become colour: one for all tiles that are looked at side by side.

    Attributes:
        black: Value of red, green and blue that is drawn black; haze lifts blue the most.
        span: Difference between black and white, for red, green and blue.
        gamma: Brightness is the value's share of the span to the power of 1 / gamma.
    """

    black: tuple[float, float, float]
    span: tuple[float, float, float]
    gamma: float = GAMMA

    @classmethod
    def of(cls, tiles: NDArray[np.float32], true_colour: bool = True) -> Stretch:
        """The stretch that suits tiles.

        Args:
            tiles: float32 ``(n, 3, y, x)``, NaN where unseen.
            true_colour: Whether they are reflectance: then one span keeps hues true, and clouds
                are left out. Else every band is stretched on its own.
        """
        pixels = np.moveaxis(tiles, 1, -1).reshape(-1, 3)
        pixels = pixels[np.isfinite(pixels).all(axis=1)]
        if not len(pixels):
            return cls((0.0, 0.0, 0.0), (0.3, 0.3, 0.3))
        if true_colour:
            ground = pixels[pixels.min(axis=1) < CLOUD]
            if 2 * len(ground) >= len(pixels):
                pixels = ground
        low, high = np.percentile(pixels, [DARKEST, BRIGHTEST], axis=0)
        red, green, blue = (float(v) for v in low)
        if true_colour:
            return cls((red, green, blue), (max(SMALLEST_SPAN, float((high - low).max())),) * 3)
        spans = (high - low) + np.finfo(np.float32).eps
        return cls((red, green, blue), (float(spans[0]), float(spans[1]), float(spans[2])), 1.0)

    def apply(self, tile: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Colours, uint8 ``(y, x, 3)``, of a tile, float32 ``(3, y, x)``; unseen is grey."""
        black, span = (np.asarray(v, np.float32)[:, None, None] for v in (self.black, self.span))
        bright = np.clip((tile - black) / span, 0.0, 1.0) ** (1.0 / self.gamma)
        colours = np.moveaxis(np.round(255.0 * np.nan_to_num(bright)), 0, -1).astype(np.uint8)
        colours[np.isnan(tile).any(axis=0)] = UNSEEN
        return colours


def in_colour(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tiles ``(n, band, y, x)`` of up to three bands as red, green and blue ``(n, 3, y, x)``.

    Of two bands blue is the difference, which of decibels is the ratio; one is shown in grey.
    """
    if tiles.shape[1] == 2:
        return np.concatenate([tiles, tiles[:, :1] - tiles[:, 1:]], axis=1)
    return np.broadcast_to(tiles, (len(tiles), 3, *tiles.shape[2:]))


def tile_picture(tile: NDArray[np.float32], stretch: Stretch, side: int) -> Image.Image:
    """A tile in colour.

    Args:
        tile: Red, green and blue, float32 ``(3, y, x)``, NaN where unseen.
        stretch: How pixels become colour.
        side: Side of the picture, pixels.
    """
    picture = Image.fromarray(stretch.apply(tile))
    return picture.resize((side, side), Image.Resampling.BICUBIC)


def retrieval_sheet(
    catalogue: Catalogue,
    codes: PublishedCodes,
    result: pd.DataFrame,
    path: str | Path,
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    filters: Filters = NO_FILTERS,
) -> None:
    """Writes a PNG that shows a tile and its neighbours by code, all in one stretch.

    Args:
        catalogue: Holds the tiles' pixels, with the sensor's bands for pictures.
        codes: What was queried.
        result: What ``codes.similar`` answered, or ``codes.similar_to_examples``.
        path: The picture's file.
        like: The examples, where there were some in place of one tile.
        unlike: The examples that results should not be like.
        filters: What the results had to fulfil; the sheet says it.

    Raises:
        QueryError: A tile has no pixels in these bands, or the file cannot be written.
    """
    path = Path(path)
    sensor = codes.sensor
    queries = dict.fromkeys(like, "more like this") | dict.fromkeys(unlike, "less like this")
    if len(queries) < 2:
        queries = {result.attrs["query"]: "the query"}
    shown = [*queries, *result["tile_id"]]
    bands = get_sensor(sensor).picture_bands
    observations = current_observations(catalogue, sensor, bands=bands)
    observations = observations.set_index("tile_id", drop=False)
    missing = [one for one in shown if one not in observations.index]
    if missing:
        raise QueryError(
            f"Tile {missing[0]} has no pixels of {sensor} in {catalogue.store} with the bands "
            f"{', '.join(bands)}: ingest its area."
        )
    observed = observations.loc[shown]
    tiles = in_colour(read_tiles(catalogue, sensor, observed, bands))
    days = [day.strftime("%Y-%m-%d") for day in observed["datetime"]]
    credit = attribution(source_years(sensor, observed["datetime"]))
    title = f"Nearest of {len(codes):,} tiles, by Hamming distance of {codes.bits}-bit codes"
    credit = f"{codes.model_id}. {credit}"
    titles = [title, str(filters)]
    sheet = draw_sheet(queries, tiles, result, days, titles, credit, bands == TRUE_COLOUR)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, "PNG", optimize=True)
    except OSError as error:
        raise QueryError(f"The picture cannot be written to {path}: {error}.") from error


def draw_sheet(
    queries: Mapping[str, str],
    tiles: NDArray[np.float32],
    neighbours: pd.DataFrame,
    days: list[str],
    titles: Sequence[str],
    credit: str,
    true_colour: bool = True,
) -> Image.Image:
    """Draws the retrieval sheet.

    Args:
        queries: IDs of the q tiles asked for, with what each is; a single one is drawn large.
        tiles: float32 ``(q + n, 3, y, x)``, the queries first, then their neighbours.
        neighbours: ``tile_id``, ``distance`` and ``away_km`` of the n neighbours.
        days: Day of each of the tiles.
        titles: Lines above the neighbours, two at most.
        credit: Model, and attribution of the pixels.
        true_colour: Whether the tiles are reflectance of red, green and blue.
    """
    stretch = Stretch.of(tiles, true_colour)
    q = len(queries)
    rows = max(2, -(-len(neighbours) // COLUMNS), -(-q // 2))
    step_x, step_y = CELL + GAP, CELL + CAPTION + GAP
    query_side = 2 * CELL + CAPTION + GAP if q == 1 else CELL
    left = MARGIN + (query_side if q == 1 else 2 * step_x - GAP) + 2 * GAP
    width = left + min(COLUMNS, max(3, len(neighbours))) * step_x - GAP + MARGIN
    height = HEADER + rows * step_y + FOOTER
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)

    draw.text((MARGIN, 20), "Places that look alike", INK, font(26))
    for i, line in enumerate(titles):
        room = (width - MARGIN - left) / max(1.0, draw.textlength(line, font(16)))
        draw.text((left, 14 + 23 * i), line, FAINT, font(int(16 * min(1.0, room))))
    for i, (tile_id, role) in enumerate(queries.items()):
        x, y = MARGIN + i % 2 * step_x, HEADER + i // 2 * step_y
        sheet.paste(tile_picture(tiles[i], stretch, query_side), (x, y))
        corner = (x + query_side - 1, y + query_side - 1)
        outline = FAINT if role.startswith("less") else FRAME
        draw.rectangle([(x, y), corner], outline=outline, width=4)
        _caption(draw, x, y + query_side, tile_id, f"{role}, {days[i]}")
    columns = (neighbours[name] for name in ("tile_id", "distance", "away_km"))
    for i, (found, distance, away) in enumerate(zip(*columns, strict=True)):
        x, y = left + i % COLUMNS * step_x, HEADER + i // COLUMNS * step_y
        sheet.paste(tile_picture(tiles[q + i], stretch, CELL), (x, y))
        bits = f"{distance:.4g} bit{'s' if distance != 1 else ''}"
        _caption(draw, x, y + CELL, found, f"{bits}, {away:.0f} km, {days[q + i]}")
    draw.text((MARGIN, height - FOOTER), credit, FAINT, font(13))
    return sheet


def _caption(draw: ImageDraw.ImageDraw, x: int, y: int, tile_id: str, note: str) -> None:
    draw.text((x, y + 6), tile_id, INK, font(17))
    draw.text((x, y + 26), note, FAINT, font(15))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The typeface of all pictures in a size, pixels."""
    return ImageFont.load_default(size)
