"""Whether the same ground lies at the same place in the tiles of different sensors."""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from data_catalog.catalogue import Catalogue
from data_catalog.demo_world import World, build_world, world_area
from data_catalog.grid import Zone
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.observations import current_observations, read_tiles
from data_catalog.planning import plan_ingest

WORLDS = {
    "north": World(tiles=3),
    "south": World(zone=Zone(33, "S"), column=300, row=2000, tiles=3, seed=3),
}
S2, LANDSAT = "sentinel-2-l2a", "landsat-c2-l2"
PAIRS = {"red": "red", "nir": "nir08", "nir08": "nir08", "swir16": "swir16"}
"""Landsat's band by Sentinel-2's: read at 10 m, 10 m, 20 m and 20 m."""

SEARCHED = np.arange(-1.5, 1.5, 0.01)
CLEAR = 0.95


class Shift(NamedTuple):
    """Of Landsat's picture against Sentinel-2's: pixels of 30 m to the east and to the south."""

    east: float
    south: float


def shift_between(image: np.ndarray, other: np.ndarray) -> Shift:
    """How far ``other`` lies from ``image``, by phase correlation of their coarse structure.

    The cross-power spectrum is turned back to hundredths of a pixel around the middle.
    """
    side = len(image)
    window = np.hanning(side)[:, None] * np.hanning(side)
    spectrum, reference = (np.fft.fft2((one - one.mean()) * window) for one in (other, image))
    cross = spectrum * reference.conj()
    frequencies = np.fft.fftfreq(side)
    coarse = np.hypot(frequencies[:, None], frequencies) < 0.25  # finer is blur and noise
    phases = np.where(coarse, cross / np.maximum(np.abs(cross), 1e-9), 0)
    turned = np.exp(2j * np.pi * np.outer(SEARCHED, frequencies))
    surface = (turned @ phases @ turned.T).real
    row, column = np.unravel_index(surface.argmax(), surface.shape)
    return Shift(float(SEARCHED[column]), float(SEARCHED[row]))


def by_three(pixels: np.ndarray) -> np.ndarray:
    """Means of 3 x 3 pixels: 10 m to 30 m."""
    *ahead, height, width = pixels.shape
    return pixels.reshape(*ahead, height // 3, 3, width // 3, 3).mean((-3, -1))


def ingested(catalogue: Catalogue, address: Path, world: World, sensor: str) -> None:
    bands = list(dict.fromkeys(PAIRS if sensor == S2 else PAIRS.values()))
    plan = plan_ingest(catalogue, str(address), sensor, world_area(world), "2024", bands=bands)
    folder = plan.save(catalogue)
    for block_id in plan.block_ids:
        ingest_block(folder, block_id)
    publish_segment(catalogue, plan)


def pixels_of(catalogue: Catalogue, sensor: str, band: str) -> dict[str, np.ndarray]:
    """Numbers of the clear tiles, by tile ID."""
    frame = current_observations(catalogue, sensor)
    frame = frame[frame["clear_fraction"] >= CLEAR]
    pixels = read_tiles(catalogue, sensor, frame, [band])[:, 0].astype(float)
    return dict(zip(frame["tile_id"], pixels, strict=True))


def median_shift(sentinel: Catalogue, landsat: Catalogue, band: str) -> Shift:
    """Over the tiles that both sensors see in the clear."""
    fine, coarse = pixels_of(sentinel, S2, band), pixels_of(landsat, LANDSAT, PAIRS[band])
    tiles = sorted(fine.keys() & coarse.keys())
    assert len(tiles) >= 3
    shifts = [shift_between(by_three(fine[tile]), coarse[tile]) for tile in tiles]
    return Shift(*np.median(shifts, 0).tolist())


class Seen(NamedTuple):
    """A world as both sensors' tiles show it."""

    source: Path
    world: World
    catalogue: Catalogue


@pytest.fixture(scope="module", params=WORLDS)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder, world = tmp_path_factory.mktemp(request.param), WORLDS[request.param]
    address = build_world(folder / "source", 1, world)
    build_world(folder / "source", 2, world)
    catalogue = Catalogue.create(folder / "catalogue")
    for sensor in (S2, LANDSAT):
        ingested(catalogue, address, world, sensor)
    return Seen(folder / "source", world, catalogue)


@pytest.mark.parametrize("band", PAIRS)
def test_both_sensors_show_the_ground_at_the_same_place(seen: Seen, band: str) -> None:
    shift = median_shift(seen.catalogue, seen.catalogue, band)
    assert abs(shift.east) < 0.1 and abs(shift.south) < 0.1, shift


def test_scenes_that_lie_ten_metres_off_are_found_out(seen: Seen, tmp_path: Path) -> None:
    """The measurement can fail: a third of a pixel is found to within a twentieth."""
    moved = tmp_path / "moved"
    shutil.copytree(seen.source, moved)
    for path in moved.glob(f"{LANDSAT}/*/*.[tT][iI][fF]"):
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
            file.transform = Affine.translation(10, 10) @ file.transform
    catalogue = Catalogue.create(tmp_path / "catalogue")
    ingested(catalogue, moved / "catalog.json", seen.world, LANDSAT)
    for band in ("red", "swir16"):
        # Ten metres to the east and ten to the north.
        shift = median_shift(seen.catalogue, catalogue, band)
        assert shift == pytest.approx((1 / 3, -1 / 3), abs=0.05)


@pytest.mark.parametrize("moved", [(0.0, 0.0), (0.25, -0.4), (-0.07, 1.1)])
def test_the_measurement_finds_known_shifts(moved: tuple[float, float]) -> None:
    random = np.random.default_rng(0)
    frequencies = np.fft.fftfreq(64)
    radius = np.maximum(np.hypot(frequencies[:, None], frequencies), 1 / 64)
    spectrum = np.fft.fft2(random.normal(size=(64, 64))) / radius
    turn = np.exp(-2j * np.pi * (frequencies[:, None] * moved[1] + frequencies * moved[0]))
    image, other = (np.fft.ifft2(one).real for one in (spectrum, spectrum * turn))
    assert shift_between(image, other) == pytest.approx(moved, abs=0.03)
