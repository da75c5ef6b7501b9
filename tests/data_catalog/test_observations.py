from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.catalogue import Catalogue
from data_catalog.errors import CatalogueError
from data_catalog.grid import Tile, Zone
from data_catalog.observations import read_tiles
from data_catalog.segments import BLOCK_ROWS, stage_pixels, write_block
from data_catalog.sensors import get_sensor

SENSOR, SIZE, BLOCKS = "sentinel-2-l2a", 120, 3


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Two segments whose pixels tell their segment, row and band."""
    catalogue = Catalogue.create(tmp_path_factory.mktemp("observations") / "catalogue")
    sensor = get_sensor(SENSOR)
    for number, name in enumerate(("first", "second")):
        folder = catalogue.root / f"tiles-{SENSOR}" / name
        array = stage_pixels(folder, BLOCKS, sensor, ["blue", "green", "red"], SIZE)
        for block in range(BLOCKS):
            rows = np.arange(BLOCK_ROWS * block, BLOCK_ROWS * (block + 1))
            values = 4000 * number + 10 * rows[:, None] + np.arange(1, 4)
            pixels = np.broadcast_to(values[:, :, None, None], (BLOCK_ROWS, 3, 12, 12)).copy()
            pixels[:, :, 0, 0] = 0
            write_block(folder, array, block, pixels.astype(np.uint16))
    return catalogue


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2 * BLOCKS * BLOCK_ROWS - 1), unique=True, max_size=80))
def test_tiles_come_in_the_order_asked_for(catalogue: Catalogue, numbers: list[int]) -> None:
    segments, rows = np.divmod(np.array(numbers, np.int64), BLOCKS * BLOCK_ROWS)
    observations = pd.DataFrame(
        {
            "tile_id": Tile(Zone(32, "N"), 3000, 40000, SIZE).id,
            "segment_id": np.array(["first", "second"])[segments],
            "row": rows,
        }
    )
    tiles = read_tiles(catalogue, SENSOR, observations, ["red", "blue"])
    assert len(tiles) == len(numbers)
    if numbers:
        expected = (4000 * segments + 10 * rows)[:, None] + [3, 1]
        np.testing.assert_allclose(tiles[:, :, 5, 5], expected * 1e-4, rtol=1e-6)
        assert np.isnan(tiles[:, :, 0, 0]).all()
        assert np.isnan(tiles).sum() == 2 * len(numbers)


def test_neighbouring_rows_are_read_together(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_catalog import observations as module

    reads: list[object] = []
    opened = module.published_pixels

    class Counted:
        def __init__(self, *segment: Any) -> None:
            self._array = opened(*segment)
            self.attrs = self._array.attrs

        def __getitem__(self, rows: slice) -> object:
            reads.append(rows)
            return self._array[rows]

    monkeypatch.setattr(module, "published_pixels", Counted)
    rows = [*range(50, 70), 80, *range(0, 10)]
    table = pd.DataFrame({"row": rows, "segment_id": "first"})
    table["tile_id"] = Tile(Zone(32, "N"), 3000, 40000, SIZE).id
    read_tiles(catalogue, SENSOR, table, ["red"])
    assert {(r.start, r.stop) for r in reads} == {(0, 10), (50, 64), (64, 70), (80, 81)}


def test_damaged_pixels_are_never_taken_for_others(tmp_path: Path) -> None:
    catalogue = Catalogue.create(tmp_path / "catalogue")
    folder = catalogue.root / f"tiles-{SENSOR}" / "damaged"
    array = stage_pixels(folder, 1, get_sensor(SENSOR), ["red"], SIZE)
    pixels = np.random.default_rng(0).integers(1, 4000, (BLOCK_ROWS, 1, 12, 12), np.uint16)
    write_block(folder, array, 0, pixels)
    [shard] = (folder / "pixels.zarr" / "reflectance" / "c").rglob("0/0/0/0")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    observations = pd.DataFrame(
        {
            "tile_id": Tile(Zone(32, "N"), 3000, 40000, SIZE).id,
            "segment_id": "damaged",
            "row": range(BLOCK_ROWS),
        }
    )
    with pytest.raises(CatalogueError, match=r"segment damaged of .* cannot be read"):
        read_tiles(catalogue, SENSOR, observations, ["red"])
