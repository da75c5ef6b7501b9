"""The landscape of the demonstration world, painted once on the ground at 10 m.

Sensors see it later, each with its own pixels: see ``instruments``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_catalog.demo_world.noise import FloatField, Noise, fraction, hash_numbers
from data_catalog.demo_world.plan import COARSE, LARGE, PIXEL, Kind, Plan, make_plan
from data_catalog.demo_world.spectra import Crop, Material, crop_material

FLAT_SHADE = 128
_STRIP = 256

# Which crops farmers grow, chosen by a hashed number.
_SHARES = {
    Crop.WHEAT: 3,
    Crop.BARLEY: 2,
    Crop.RAPESEED: 2,
    Crop.MAIZE: 3,
    Crop.BEET: 2,
    Crop.ALFALFA: 2,
    Crop.POTATO: 1,
    Crop.FALLOW: 1,
}
_ROTATION = np.repeat(list(_SHARES), list(_SHARES.values()))


@dataclass(frozen=True)
class Ground:
    """What lies on the ground, at 10 m, first row in the north.

    Attributes:
        material: Material number, uint8 (y, x).
        vigour: How dense, ripe or bright it is, uint8 (y, x).
        shade: Light on it, uint8 (y, x), 128 for flat ground.
    """

    material: NDArray[np.uint8]
    vigour: NDArray[np.uint8]
    shade: NDArray[np.uint8]


def paint_landscape(side: int, seed: int) -> Ground:
    """Paints a square landscape.

    Args:
        side: Pixels of 10 m on a side.
        seed: The same seed gives the same landscape.
    """
    painter = _Painter(make_plan(side, seed), seed)
    ground = Ground(*(np.empty((side, side), np.uint8) for _ in range(3)))

    def paint(start: int) -> None:
        stop = min(start + _STRIP, side)
        strip = _Strip(painter, start, stop)
        strip.paint()
        ground.material[start:stop] = strip.material
        ground.vigour[start:stop] = np.clip(strip.vigour * 255.0, 0, 255)
        ground.shade[start:stop] = np.clip(strip.shade * FLAT_SHADE, 20, 255)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(paint, range(0, side, _STRIP)))
    return ground


class _Painter:
    """The plan and the random fields that all strips draw from."""

    def __init__(self, plan: Plan, seed: int):
        rng = np.random.default_rng([seed, 1])
        side = plan.side
        self.plan = plan
        self.relief = Noise(rng, side, 240, 5, gain=0.48)
        self.ridges = Noise(rng, side, 90, 4, gain=0.5)
        self.basins = Noise(rng, side, 130, 4, gain=0.42)
        self.stands = Noise(rng, side, 60, 3)
        self.patches = Noise(rng, side, 22, 3, gain=0.6)
        self.grain = Noise(rng, side, 4.5, 2, gain=0.8)
        self.drift = [Noise(rng, side, 40, 3, gain=0.6) for _ in range(2)]
        self.coarse = {
            name: Image.fromarray(getattr(plan, name))
            for name in ("closeness", "wetness", "ruggedness")
        }

    def upsampled(self, name: str, start: int, stop: int) -> FloatField:
        """Rows of a field of the plan, smoothly drawn at full resolution."""
        box = (0.0, start / COARSE, self.plan.side / COARSE, stop / COARSE)
        size = (self.plan.side, stop - start)
        return np.asarray(self.coarse[name].resize(size, Image.Resampling.BILINEAR, box))


class _Strip:
    """Some rows of the landscape while they are painted, later layers over earlier ones."""

    def __init__(self, painter: _Painter, start: int, stop: int):
        plan, self.plan = painter.plan, painter.plan
        self.start, self.stop = start, stop
        rows = np.arange(start, stop)[:, None]
        columns = np.arange(plan.side)[None, :]
        drift = [noise.rows(start, stop) for noise in painter.drift]
        self.grain = painter.grain.rows(start, stop)
        y = (
            np.clip(rows + drift[1] * 2.2 + self.grain * 0.9, 0, plan.side - 1).astype(np.int32)
            // COARSE
        )
        x = (
            np.clip(columns + drift[0] * 2.2 - self.grain * 0.9, 0, plan.side - 1).astype(np.int32)
            // COARSE
        )
        self.region = plan.region[y, x]
        self.settlement = plan.settlement[y, x]
        self.kind = plan.regions.kind[self.region]
        # Parcels follow the terrain a little: their borders are not ruled lines.
        self.east = ((columns - plan.side / 2) * PIXEL + drift[0] * 7).astype(np.float32)
        self.south = ((rows - plan.side / 2) * PIXEL + drift[1] * 7).astype(np.float32)
        self.closeness = painter.upsampled("closeness", start, stop)
        self.wetness = painter.upsampled("wetness", start, stop)
        self.ruggedness = painter.upsampled("ruggedness", start, stop)
        self.stands = painter.stands.rows(start, stop)
        self.patches = painter.patches.rows(start, stop)
        self.basins = painter.basins.rows(start, stop)
        self.height = self._height(painter)
        shape = (stop - start, plan.side)
        self.material = np.full(shape, Material.MEADOW, np.uint8)
        self.vigour = np.full(shape, 0.5, np.float32)
        self.shade = np.ones(shape, np.float32)

    def _height(self, painter: _Painter) -> FloatField:
        """Height in metres with one more row before and after, for slopes."""
        side = self.plan.side
        first, last = max(self.start - 1, 0), min(self.stop + 1, side)
        relief = painter.relief.rows(first, last)
        ridges = 1.0 - np.abs(painter.ridges.rows(first, last))
        rugged = painter.upsampled("ruggedness", first, last)
        height = 28.0 * relief + rugged * (60.0 * relief + 55.0 * ridges)
        pad = ((first - (self.start - 1), (self.stop + 1) - last), (0, 0))
        return np.pad(height, pad, mode="edge").astype(np.float32)

    def paint(self) -> None:
        """Paints all layers."""
        self._fields()
        self._orchards()
        self._pivots()
        self._pasture()
        self._forest()
        self._hills()
        self._lakes()
        self._river()
        self._settlements()
        self._roads()
        self._light()

    def _set(
        self,
        where: NDArray[np.bool_],
        material: NDArray | int,
        vigour: FloatField | float,
        shade: FloatField | float = 1.0,
    ) -> None:
        np.copyto(self.material, np.asarray(material, np.uint8), where=where)
        np.copyto(self.vigour, np.asarray(vigour, np.float32), where=where)
        np.copyto(self.shade, np.asarray(shade, np.float32), where=where)

    def _turned(self, angle: FloatField) -> tuple[FloatField, FloatField]:
        cos, sin = np.cos(angle), np.sin(angle)
        return self.east * cos + self.south * sin, self.south * cos - self.east * sin

    def _parcels(self) -> tuple[NDArray[np.uint32], FloatField, FloatField, FloatField]:
        """Parcel number, metres to its border, and the place in the region's own directions."""
        regions, region = self.plan.regions, self.region
        u, v = self._turned(regions.angle[region])
        length, width = regions.length[region], regions.width[region]
        row = np.floor(v / length)
        row_number = hash_numbers(region, row.astype(np.int32))
        own_width = width * (0.75 + 0.6 * fraction(row_number))
        shifted = u + own_width * 7.0 * fraction(row_number, 1)
        column = np.floor(shifted / own_width)
        number = hash_numbers(row_number, column.astype(np.int32))
        along, across = v - row * length, shifted - column * own_width
        border = np.minimum(
            np.minimum(across, own_width - across), np.minimum(along, length - along)
        )
        # Some parcels are split, so that sizes vary within a region.
        cut = length * (0.35 + 0.3 * fraction(number, 1))
        split = fraction(number) < 0.4
        number = np.where(split & (along > cut), hash_numbers(number, 1), number)
        border = np.where(split, np.minimum(border, np.abs(along - cut)), border)
        return number, border, u, v

    def _fields(self) -> None:
        self.parcel, self.border, self.u, self.v = self._parcels()
        farmed = (self.kind >= Kind.LARGE_FIELDS) & (self.kind <= Kind.PASTURE)
        farmed |= self.kind == Kind.TOWN
        soil = self.plan.regions.soil[self.region]
        crop = _ROTATION[(self.parcel >> np.uint32(20)) & np.uint32(15)]
        stand = 0.2 + 0.6 * fraction(self.parcel, 1)
        self._set(
            farmed,
            crop_material(soil, crop),
            stand + 0.08 * self.patches + 0.05 * self.grain,
            0.96 + 0.08 * fraction(self.parcel) + 0.02 * self.grain,
        )
        lanes = farmed & (self.border < 6.0) & (self.kind != Kind.STRIP_FIELDS)
        self._set(lanes, Material.MEADOW, 0.3 + 0.1 * self.grain)
        across = np.abs(self.v - np.round(self.v / 840.0) * 840.0)
        self._set(farmed & (across < 6.0) & (self.kind == Kind.STRIP_FIELDS), Material.TRACK, 0.6)
        hedges = (self.kind == Kind.HEDGED_FIELDS) & (self.border < 11.0 + 3.0 * self.patches)
        self._set(hedges, Material.BROADLEAF, 0.6 + 0.2 * self.grain, 0.9 + 0.15 * self.grain)
        meadow = (self.kind == Kind.HEDGED_FIELDS) & ~hedges & (fraction(self.parcel, 2) < 0.5)
        self._set(
            meadow, Material.MEADOW, 0.2 + 0.7 * fraction(self.parcel, 1) + 0.1 * self.patches
        )

    def _orchards(self) -> None:
        inside = (self.kind == Kind.ORCHARDS) & (self.border > 8.0)
        planted = inside & (fraction(self.parcel, 2) < 0.8)
        turned = fraction(self.parcel) < 0.5
        rows = np.sin(np.where(turned, self.u, self.v) * np.float32(2 * np.pi / 42.0)) > -0.1
        self._set(
            planted & rows, Material.BROADLEAF, 0.5 + 0.2 * self.grain, 0.9 + 0.1 * self.grain
        )
        floor = np.where(fraction(self.parcel, 1) < 0.5, Material.DRY_GRASS, Material.TRACK)
        self._set(planted & ~rows, floor, 0.4 + 0.1 * self.patches)
        self._set((self.kind == Kind.ORCHARDS) & (self.border <= 8.0), Material.TRACK, 0.7)

    def _pivots(self) -> None:
        here = self.kind == Kind.PIVOT_FIELDS
        size = self.plan.regions.length[self.region]
        column, row = np.floor(self.u / size), np.floor(self.v / size)
        across, along = self.u - (column + 0.5) * size, self.v - (row + 0.5) * size
        distance = np.hypot(across, along) / size
        number = hash_numbers(self.region, column.astype(np.int32), row.astype(np.int32), 5)
        # Circles are sown in one, two or four sectors.
        halves = fraction(number)
        sector = (across > 0) * (halves < 0.45) + 2 * (along > 0) * (halves < 0.2)
        number = hash_numbers(number, sector)
        crop = _ROTATION[(number >> np.uint32(20)) & np.uint32(15)]
        self._set(here, Material.DRY_GRASS, 0.12 + 0.1 * self.patches + 0.1 * self.stands, 1.08)
        soil = self.plan.regions.soil[self.region]
        self._set(
            here & (distance < 0.47),
            crop_material(soil, crop),
            0.3 + 0.5 * fraction(number, 1) + 0.05 * self.patches,
        )
        corners = (np.abs(across) > size * 0.488) | (np.abs(along) > size * 0.488)
        self._set(here & corners, Material.TRACK, 0.6)

    def _pasture(self) -> None:
        here = (self.kind == Kind.PASTURE) | (self.kind == Kind.LAKE_COUNTRY)
        dry = fraction(self.parcel, 1) * 0.5 + self.plan.regions.mood[self.region] * 0.4
        vigour = 0.75 - dry + 0.14 * self.patches + 0.1 * self.stands
        self._set(here, Material.MEADOW, vigour, 1 + 0.03 * self.grain)
        fence = here & (self.kind == Kind.PASTURE) & (self.border < 7.0)
        self._set(fence, Material.BROADLEAF, 0.5, 0.95)
        trees = here & (self.patches + 0.6 * self.grain > 1.9)
        self._set(trees, Material.BROADLEAF, 0.5 + 0.2 * self.grain, 0.85 + 0.2 * self.grain)

    def _forest(self) -> None:
        mood = self.plan.regions.mood[self.region]
        copse = (self.kind <= Kind.PASTURE) & (self.stands + 0.35 * self.patches > 1.75)
        forest = (self.kind == Kind.FOREST) | copse
        forest |= (self.kind == Kind.LAKE_COUNTRY) & (
            self.stands + 0.4 * self.patches > 0.1 - 0.7 * mood
        )
        conifers = self.stands * 0.5 + 0.25 * self.patches > (mood - 0.5) * 2.2
        crowns = 0.92 + 0.16 * self.grain
        self._set(forest & conifers, Material.CONIFER, 0.12 + 0.1 * self.patches, crowns)
        self._set(forest & ~conifers, Material.BROADLEAF, 0.78 + 0.14 * self.patches, crowns)
        # Felled stands and rides, on a grid turned as the region's fields would be.
        u, v = self._turned(self.plan.regions.angle[self.region])
        cell = hash_numbers(
            self.region, np.floor(u / 240).astype(np.int32), np.floor(v / 300).astype(np.int32)
        )
        wild = self.kind == Kind.FOREST
        felled = wild & (fraction(cell) < 0.07) & (self.patches > -1.2)
        self._set(felled, Material.CLEARCUT, 0.15 + 0.8 * fraction(cell, 1) + 0.1 * self.grain)
        rides = (np.abs(u - np.round(u / 960) * 960) < 6) | (
            np.abs(v - np.round(v / 1200) * 1200) < 6
        )
        self._set(wild & rides, Material.CLEARCUT, 0.7)

    def _hills(self) -> None:
        here = self.kind == Kind.BARE_HILLS
        height = self.height[1:-1]
        mood = self.plan.regions.mood[self.region]
        bareness = 0.012 * height + 0.5 * self.patches + 0.3 * self.stands + 1.6 * (mood - 0.45)
        self._set(here, Material.DRY_GRASS, 0.3 - 0.15 * self.patches, 1 + 0.03 * self.grain)
        self._set(here & (bareness < -0.2), Material.HEATH, 0.35 + 0.15 * self.patches)
        self._set(
            here & (bareness > 0.9),
            Material.ROCK,
            0.12 + 0.15 * self.patches,
            0.95 + 0.05 * self.grain,
        )
        sandy = here & (mood > 0.6) & (self.stands > 0.5)
        self._set(sandy, Material.SAND, 0.28 + 0.12 * self.patches)
        scrub = here & (self.patches + self.grain < -2.0)
        self._set(scrub, Material.CONIFER, 0.2)

    def _lakes(self) -> None:
        depth = 0.9 * self.basins + 2.0 * self.wetness - 2.7
        shore = (depth > -0.14) & (self.wetness > 0.3) & (self.stands < 0.6)
        self._set(shore, Material.REED, 0.75 + 0.15 * self.patches)
        lake = depth + 0.02 * self.patches > 0
        algae = 0.5 - 1.1 * depth + 0.05 * self.stands
        self._set(lake, Material.LAKE, algae)
        self.lake = lake

    def _river(self) -> None:
        middle = self.plan.river_x[self.start : self.stop, None]
        width = self.plan.river_width[self.start : self.stop, None]
        slope = np.gradient(self.plan.river_x)[self.start : self.stop, None]
        columns = np.arange(self.plan.side, dtype=np.float32)[None, :]
        distance = np.abs(columns - middle) / np.sqrt(1 + slope**2)
        plain = (distance < 32 + 9 * self.stands) & ~self.lake
        self._set(plain, Material.MEADOW, 0.5 + 0.3 * self.stands + 0.1 * self.patches)
        woods = plain & (self.patches + self.stands * 0.5 > 0.45)
        self._set(woods, Material.BROADLEAF, 0.75 + 0.15 * self.grain, 0.9 + 0.15 * self.grain)
        bank = (distance < width + 2.5 + 1.6 * self.patches) & ~self.lake
        self._set(bank, Material.SAND, 0.6 + 0.2 * self.grain)
        self.river = distance < width
        self._set(self.river & ~self.lake, Material.RIVER, 0.5 + 0.1 * self.stands)

    def _settlements(self) -> None:
        settlements = self.plan.settlements
        near = self.closeness + 0.16 * self.patches + 0.10 * self.stands
        inside = (near < 1.0) & ~self.lake & ~self.river
        if not inside.any():
            return
        density = 1.0 - near
        u, v = self._turned(settlements.angle[self.settlement])
        column, row = np.floor(u / 130.0), np.floor(v / 95.0)
        quarter = hash_numbers(self.settlement, column.astype(np.int32), row.astype(np.int32))
        street = np.minimum(
            np.abs(u - np.round(u / 130.0) * 130.0), np.abs(v - np.round(v / 95.0) * 95.0)
        )
        plot = hash_numbers(
            np.floor(u / 21.0).astype(np.int32), np.floor(v / 21.0).astype(np.int32)
        )
        large = settlements.radius[self.settlement] > LARGE
        self._set(inside, Material.GARDEN, 0.25 + 0.5 * fraction(plot, 1), 0.95 + 0.1 * self.grain)
        built = fraction(plot) < 0.26 + 0.85 * np.clip(density, 0, 1) * large
        roof = fraction(plot, 2)
        self._set(inside & built, Material.RED_ROOF, 0.45 + 0.55 * roof, 0.9 + 0.1 * self.grain)
        self._set(inside & built & (roof > 0.72), Material.CONCRETE, fraction(plot, 1))
        self._set(inside & built & (roof > 0.96), Material.BRIGHT_ROOF, 0.6)
        core = inside & large & (density > 0.55)
        self._set(core & (roof > 0.35), Material.CONCRETE, 0.2 + 0.6 * fraction(plot, 1), 0.95)
        use = fraction(quarter)
        works = inside & large & (use < 0.08) & (density < 0.6)
        self._set(works, Material.CONCRETE, 0.6 + 0.1 * self.grain)
        hall = hash_numbers(
            np.floor(u / 65.0).astype(np.int32), np.floor(v / 47.5).astype(np.int32)
        )
        self._set(
            works & (fraction(hall) < 0.55), Material.BRIGHT_ROOF, 0.1 + 0.7 * fraction(hall, 1)
        )
        park = inside & (use > 0.93)
        self._set(park, Material.GARDEN, 0.35 + 0.3 * self.grain)
        self._set(inside & (street < 6.0), Material.ASPHALT, 0.3)

    def _roads(self) -> None:
        roads = self.plan.roads[self.start : self.stop]
        dry = (roads > 0) & ~self.lake
        self._set(dry & ((roads == 2) | ~self.river), Material.ASPHALT, 0.25 + 0.3 * (roads == 2))

    def _light(self) -> None:
        """Shades slopes: the morning sun stands in the south-east."""
        south = (self.height[2:] - self.height[:-2]) / (2 * PIXEL)
        east = np.gradient(self.height[1:-1], axis=1) / PIXEL
        facing = (1.0 - 0.55 * south - 0.55 * east) / np.sqrt(1 + south**2 + east**2)
        water = self.material <= Material.RIVER
        self.shade *= np.where(water, 1.0, np.clip(facing, 0.4, 1.3))
