"""Where things lie in the landscape: regions, settlements, the river and roads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from data_catalog.demo_world.noise import FloatField, Noise

COARSE = 4
"""Pixels of the landscape to a pixel of the plan."""

LARGE = 80.0
"""Radius of a town, in pixels of the landscape; what is smaller is a village."""

PIXEL = 10.0
"""Metres of the ground to a pixel of the landscape."""


class Kind(IntEnum):
    """Kinds of regions."""

    FOREST = 0
    LARGE_FIELDS = 1
    STRIP_FIELDS = 2
    HEDGED_FIELDS = 3
    PIVOT_FIELDS = 4
    ORCHARDS = 5
    PASTURE = 6
    LAKE_COUNTRY = 7
    BARE_HILLS = 8
    TOWN = 9


# How often each kind occurs: every kind often enough to have look-alikes.
_DECK = (
    Kind.FOREST,
    Kind.LARGE_FIELDS,
    Kind.TOWN,
    Kind.BARE_HILLS,
    Kind.STRIP_FIELDS,
    Kind.LAKE_COUNTRY,
    Kind.HEDGED_FIELDS,
    Kind.FOREST,
    Kind.PIVOT_FIELDS,
    Kind.ORCHARDS,
    Kind.PASTURE,
    Kind.TOWN,
    Kind.BARE_HILLS,
    Kind.LARGE_FIELDS,
    Kind.LAKE_COUNTRY,
)

# Parcel width and length, metres.
_PARCELS = {
    Kind.LARGE_FIELDS: (420.0, 640.0),
    Kind.STRIP_FIELDS: (52.0, 420.0),
    Kind.HEDGED_FIELDS: (150.0, 190.0),
    Kind.PIVOT_FIELDS: (820.0, 820.0),
    Kind.ORCHARDS: (230.0, 260.0),
    Kind.PASTURE: (330.0, 400.0),
    Kind.TOWN: (240.0, 330.0),
}


@dataclass(frozen=True)
class Regions:
    """The regions' properties, one entry a region."""

    kind: NDArray[np.int64]
    angle: FloatField
    width: FloatField
    length: FloatField
    soil: NDArray[np.int64]
    mood: FloatField
    """A uniform number in [0, 1): the mix of trees, the dryness, whatever varies within a kind."""


@dataclass(frozen=True)
class Settlements:
    """Villages and towns, one entry each."""

    x: FloatField
    y: FloatField
    radius: FloatField
    angle: FloatField


@dataclass(frozen=True)
class Plan:
    """The coarse layout of a square landscape.

    Attributes:
        side: Pixels of the landscape on a side.
        regions: Properties of the regions.
        settlements: Properties of the settlements.
        region: Region number (y, x), at COARSE pixels.
        settlement: Nearest settlement's number (y, x), at COARSE pixels.
        closeness: Distance to it over its radius (y, x), at COARSE pixels.
        wetness: 0 … 1, lake country (y, x), at COARSE pixels.
        ruggedness: 0 … 1, bare hills (y, x), at COARSE pixels.
        roads: 0 none, 1 minor, 2 main (y, x), at full resolution.
        river_x: The river's middle for every row, pixels.
        river_width: Half its width for every row, pixels.
    """

    side: int
    regions: Regions
    settlements: Settlements
    region: NDArray[np.int32]
    settlement: NDArray[np.int32]
    closeness: FloatField
    wetness: FloatField
    ruggedness: FloatField
    roads: NDArray[np.uint8]
    river_x: FloatField
    river_width: FloatField


def make_plan(side: int, seed: int) -> Plan:
    """Lays out a landscape.

    Args:
        side: Pixels on a side.
        seed: The same seed gives the same layout.
    """
    rng = np.random.default_rng(seed)
    regions, region, centres = _regions(rng, side)
    kind = regions.kind[region]
    river_x, river_width = _river(rng, side)
    settlements = _settlements(rng, side, regions, centres, kind)
    closeness, settlement = _closeness(side, settlements)
    return Plan(
        side=side,
        regions=regions,
        settlements=settlements,
        region=region,
        settlement=settlement,
        closeness=closeness,
        wetness=_softened(kind == Kind.LAKE_COUNTRY, 12),
        ruggedness=_softened(kind == Kind.BARE_HILLS, 12),
        roads=_roads(rng, side, settlements),
        river_x=river_x,
        river_width=river_width,
    )


def _softened(mask: NDArray[np.bool_], reach: float) -> FloatField:
    return np.asarray(ndimage.gaussian_filter(mask.astype(np.float32), reach), np.float32)


def _regions(
    rng: np.random.Generator, side: int
) -> tuple[Regions, NDArray[np.int32], NDArray[np.float64]]:
    size = float(np.clip(side / 6.5, 160.0, 560.0))
    cells = int(np.ceil(side / size)) + 1
    corner = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(-1, 2)
    centres = (corner + rng.uniform(0.12, 0.88, corner.shape) - 0.5) * size
    count = len(centres)
    kind = np.concatenate([rng.permutation(_DECK) for _ in range(count // len(_DECK) + 1)])[:count]
    stretch = rng.uniform(0.75, 1.3, count)
    width, length = (
        np.array([_PARCELS.get(Kind(k), (200.0, 200.0))[i] for k in kind]) * stretch for i in (0, 1)
    )
    pivots = kind == Kind.PIVOT_FIELDS
    width[pivots] = length[pivots] = rng.choice([660.0, 820.0, 980.0], pivots.sum())
    regions = Regions(
        kind=kind,
        angle=rng.uniform(0, np.pi, count).astype(np.float32),
        width=width.astype(np.float32),
        length=length.astype(np.float32),
        soil=rng.choice(3, count, p=[0.5, 0.25, 0.25]),
        mood=rng.uniform(0, 1, count).astype(np.float32),
    )
    coarse = side // COARSE + 2
    bend = [Noise(rng, coarse, size / COARSE * 0.7, 4).rows(0, coarse) for _ in range(2)]
    rows, columns = np.mgrid[0:coarse, 0:coarse] * float(COARSE)
    places = np.stack([columns + bend[0] * size * 0.10, rows + bend[1] * size * 0.10], -1)
    _, region = cKDTree(centres).query(places)
    return regions, region.astype(np.int32), centres


def _river(rng: np.random.Generator, side: int) -> tuple[FloatField, FloatField]:
    rows = np.arange(side)
    x = np.full(side, side * rng.uniform(0.35, 0.6))
    for wavelength, amplitude in ((2600.0, 0.0), (900.0, 130.0), (330.0, 55.0), (120.0, 16.0)):
        nodes = np.arange(-2, side / wavelength * 4 + 3)
        x += np.interp(
            rows, nodes * wavelength / 4, rng.standard_normal(len(nodes)) * amplitude / 2
        )
    x = ndimage.gaussian_filter1d(x, 14)
    width = 4.0 + 1.6 * ndimage.gaussian_filter1d(rng.standard_normal(side), 60) * 15
    return x.astype(np.float32), np.clip(width, 2.5, 9).astype(np.float32)


def _settlements(
    rng: np.random.Generator,
    side: int,
    regions: Regions,
    centres: NDArray[np.float64],
    kind: NDArray[np.int64],
) -> Settlements:
    towns = centres[(regions.kind == Kind.TOWN) & ((centres > 0) & (centres < side)).all(1)]
    towns = towns + rng.normal(0, 15, towns.shape)
    radius = [rng.uniform(90, 240, len(towns))]
    places = [towns]
    wanted = int(4.5e-6 * side * side) + 2
    found = rng.uniform(0, side, (wanted * 3, 2))
    ground = kind[(found[:, 1] // COARSE).astype(int), (found[:, 0] // COARSE).astype(int)]
    farmed = (ground >= Kind.LARGE_FIELDS) & (ground <= Kind.PASTURE)
    villages = found[farmed][:wanted]
    places.append(villages)
    radius.append(rng.gamma(2.2, 9.0, len(villages)) + 13)
    x, y = np.concatenate(places).T.astype(np.float32)
    angle = rng.uniform(0, np.pi, len(x)).astype(np.float32)
    return Settlements(x, y, np.concatenate(radius).astype(np.float32), angle)


def _closeness(side: int, settlements: Settlements) -> tuple[FloatField, NDArray[np.int32]]:
    coarse = side // COARSE + 2
    best = np.full((coarse, coarse), np.inf, np.float32)
    which = np.zeros((coarse, coarse), np.int32)
    axis = np.arange(coarse, dtype=np.float32) * COARSE
    for number, (x, y, radius) in enumerate(
        zip(settlements.x, settlements.y, settlements.radius, strict=True)
    ):
        distance = np.hypot(axis[None, :] - x, axis[:, None] - y) / radius
        nearer = distance < best
        best[nearer] = distance[nearer]
        which[nearer] = number
    return best, which


def _roads(rng: np.random.Generator, side: int, settlements: Settlements) -> NDArray[np.uint8]:
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    places = np.stack([settlements.x, settlements.y], 1)
    distances = cdist(places, places)
    tree = minimum_spanning_tree(distances).toarray() > 0
    nearest = np.argsort(distances, 1)[:, 1:4]
    links = {(min(a, b), max(a, b)) for a, b in zip(*np.nonzero(tree), strict=True)}
    links |= {(min(a, b), max(a, b)) for a in range(len(places)) for b in nearest[a][:2]}
    large = settlements.radius > LARGE
    for a, b in sorted(links):
        _draw_road(rng, draw, places[a], places[b], 1, 1 if not (large[a] or large[b]) else 2)
    towns = np.flatnonzero(large)
    for a in towns:
        for b in towns[np.argsort(distances[a, towns])[1:3]]:
            _draw_road(rng, draw, places[a], places[b], 2, 3)
    return np.array(image)


def _draw_road(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    start: NDArray[np.float32],
    end: NDArray[np.float32],
    value: int,
    width: int,
) -> None:
    along = np.linspace(0, 1, 40)[:, None]
    across = np.array([-(end - start)[1], (end - start)[0]])
    sway = sum(rng.normal(0, 0.06 / k) * np.sin(np.pi * k * along) for k in range(1, 6))
    line = start + along * (end - start) + sway * across
    draw.line([(float(x), float(y)) for x, y in line], fill=value, width=width, joint="curve")
