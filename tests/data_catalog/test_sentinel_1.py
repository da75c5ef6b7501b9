"""Sentinel-1 through everything that optical sensors go through, as a further source."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image
from tiny_source import SCL_CLEAR, TinySource, noise

from data_catalog.catalogue import Catalogue
from data_catalog.cluster_pictures import cluster_picture
from data_catalog.code_tables import publish_code_tables
from data_catalog.encoding import encode_observations
from data_catalog.grid import Tile, Zone
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.models import load_model
from data_catalog.observations import current_observations, read_tiles
from data_catalog.pictures import retrieval_sheet
from data_catalog.planning import plan_ingest
from data_catalog.query import open_codes
from data_catalog.training import plan_training
from rshash.features import make_extractor
from rshash.mrhash_settings import MrHashSettings

S1, S2 = "sentinel-1-rtc", "sentinel-2-l2a"
ROWS, COLUMNS = 3, 4
CORNER = Tile(Zone(32, "N"), 360, 2778)
WEST, _, _, NORTH = CORNER.bounds
HEIGHT, WIDTH = ROWS * 192, COLUMNS * 192
CUT = WIDTH // 2 - 50
"""Where one slice ends; the next begins a little before."""


def power(seed: int, decibels: float) -> np.ndarray:
    """Speckled backscatter, linear, with values as corner reflectors and calm water give them."""
    rng = np.random.default_rng(seed)
    values = 10 ** (decibels / 10) * rng.gamma(4.4, 1 / 4.4, (HEIGHT, WIDTH))
    values[0, :4] = [100.0, 1e-7, 0.0, -1e-4]
    return values.astype(np.float32)


@pytest.fixture(scope="module")
def bands() -> dict[str, np.ndarray]:
    return {"vv": power(1, -10), "vh": power(2, -17)}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory, bands: dict[str, np.ndarray]) -> Catalogue:
    folder = tmp_path_factory.mktemp("radar")
    source = TinySource(folder / "source")
    epsg = CORNER.zone.epsg
    left = {key: values[:, :CUT].copy() for key, values in bands.items()}
    for values in left.values():
        values[:, -30:] = -32768  # slices end in nothing, and the next one has it
    right = {key: values[:, CUT - 40 :] for key, values in bands.items()}
    source.sentinel_1("slice-1", epsg, WEST, NORTH, left, s1__slice_number="1")
    east = WEST + (CUT - 40) * 10
    source.sentinel_1("slice-2", epsg, east, NORTH, right, s1__slice_number="2")
    red = {"B04": (noise((HEIGHT, WIDTH), 1), 10), "B11": (noise((HEIGHT, WIDTH), 2), 10)}
    clear = np.full((HEIGHT // 2, WIDTH // 2), SCL_CLEAR, np.uint8)
    source.sentinel_2("granule", epsg, WEST, NORTH, red, clear)
    address = str(source.write())
    catalogue = Catalogue.create(folder / "catalogue")
    area = CORNER.footprint.union(
        Tile(CORNER.zone, CORNER.column + COLUMNS - 1, CORNER.row - ROWS + 1).footprint
    ).envelope.buffer(-0.002)
    for sensor, wanted in ((S1, None), (S2, ["red"])):
        plan = plan_ingest(catalogue, address, sensor, area, "2024", bands=wanted)
        saved = plan.save(catalogue)
        for block_id in plan.block_ids:
            ingest_block(saved, block_id)
        publish_segment(catalogue, plan)
    return catalogue


def test_tiles_hold_decibels_mosaicked_from_the_slices_of_a_datatake(
    catalogue: Catalogue, bands: dict[str, np.ndarray]
) -> None:
    observed = current_observations(catalogue, S1)
    assert len(observed) == ROWS * COLUMNS
    assert set(observed["clear_fraction"]) == {1.0}
    used = [tuple(scenes) for scenes in observed["source_scenes"]]
    assert {("slice-1",), ("slice-2",), ("slice-1", "slice-2")} == set(used)
    tiles = read_tiles(catalogue, S1, observed)
    assert tiles.shape == (ROWS * COLUMNS, 2, 192, 192)
    for tile_id, tile in zip(observed["tile_id"], tiles, strict=True):
        west, south, _, _ = Tile(CORNER.zone, *map(int, tile_id.split("_")[1:])).bounds
        column, row = (west - WEST) // 10, (NORTH - south) // 10 - 192
        for band, values in zip(bands.values(), tile, strict=True):
            seen = band[row : row + 192, column : column + 192]
            expected = np.clip(10 * np.log10(np.maximum(seen, 1e-30)), -49.999, 15.535)
            np.testing.assert_allclose(values, expected, atol=6e-4)


def test_the_segment_says_what_its_numbers_mean(catalogue: Catalogue) -> None:
    segment = catalogue.items(f"tiles-{S1}")[0]
    assert "gamma0 in dB is number x 0.001 + -50" in segment.assets["pixels"].description
    folder = catalogue.root / f"tiles-{S1}" / segment.id / "pixels.zarr"
    array = zarr.open_group(folder, mode="r", use_consolidated=False)["gamma0"]
    assert (
        dict(array.attrs).items()
        >= {
            "quantity": "gamma0",
            "units": "dB",
            "scale_factor": 0.001,
            "add_offset": -50.0,
            "_FillValue": 0,
        }.items()
    )


def test_it_can_be_looked_at(catalogue: Catalogue) -> None:
    observed = current_observations(catalogue, S1)
    probabilities = np.tile(np.eye(2, dtype=np.float32), (ROWS * COLUMNS // 2, 1))
    page = cluster_picture(catalogue, S1, list(observed["tile_id"]), probabilities)
    assert isinstance(page, Image.Image)
    card = np.asarray(page)[100:200, 40:140].astype(int)
    assert np.ptp(card, axis=(0, 1)).min() > 150, "all three colours are used"


def test_it_trains_beside_another_sensor(catalogue: Catalogue, tmp_path: Path) -> None:
    extractors = {
        sensor: make_extractor({"kind": "mosaiks", "bands": bands, "features": 16})
        for sensor, bands in ((S2, ["red"]), (S1, ["vv", "vh"]))
    }
    settings = MrHashSettings(bits=16, clusters=2, latent=2, hashing_epochs=2, hidden=16)
    training = plan_training(catalogue, extractors, lambda _: settings, CORNER.size)
    assert list(training.features) == [S2, S1]
    radar = np.asarray(training.features[S1][:])
    assert np.isfinite(radar).all() and radar.std(axis=0).max() > 0
    model_id = training.publish(training.run())
    item = catalogue.item("models", model_id)
    assert item.properties["rshash:secondary_sensors"] == [S1]
    assert "Sentinel" in item.properties["attribution"]


def test_it_can_be_the_source_of_codes(catalogue: Catalogue, tmp_path: Path) -> None:
    extractor = make_extractor({"kind": "mosaiks", "bands": ["vv", "vh"], "features": 16})
    settings = MrHashSettings(bits=16, clusters=2, latent=2, hashing_epochs=2, hidden=16)
    training = plan_training(catalogue, {S1: extractor}, lambda _: settings, CORNER.size)
    model = load_model(catalogue, training.publish(training.run()))
    rows = encode_observations(catalogue, model, current_observations(catalogue, S1))
    assert len(rows) == ROWS * COLUMNS
    publish_code_tables(catalogue, model, rows)
    item = catalogue.item("models", model.model_id)
    assert item.properties["mlm:input"][0]["description"].startswith("gamma0 (unit dB)")
    codes = open_codes(catalogue, model.model_id)
    sheet = tmp_path / "sheet.png"
    retrieval_sheet(catalogue, codes, codes.similar(CORNER.id, 4), sheet)
    tile = np.asarray(Image.open(sheet).convert("RGB"))[100:500, 60:500].astype(int)
    assert np.ptp(tile, axis=(0, 1)).min() > 150, "all three colours are used"
