"""Nights in any order give what reading everything every time would give."""

import random
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from published_world import BANDS, SENSOR, index, make_model, publish_segment, segment_index, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import (
    code_rows,
    collection_of,
    publish_code_tables,
    published_table,
    stale_observations,
    write_code_table,
)
from data_catalog.current_view import current_view
from data_catalog.grid import Tile, Zone, parse_tile_id
from data_catalog.observations import current_observations, passed_over
from data_catalog.segments import published_bands
from rshash.model import Model

NORTH, SOUTH = Zone(32, "N"), Zone(33, "S")
TILES = [*tiles(12), *tiles(6, SOUTH)]
NIGHTS = 12


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model()


def plain_view(catalogue: Catalogue, bands: tuple[str, ...]) -> pd.DataFrame:
    """The newest valid observation of every tile, from all segments' indexes."""
    newest: dict[str, dict[str, object]] = {}
    for item in catalogue.items(f"tiles-{SENSOR}"):
        if not published_bands(item).issuperset(bands):
            continue
        for row in segment_index(catalogue, item).to_dict("records"):
            before = newest.get(row["tile_id"])
            if row["state"] == "valid" and (
                before is None or row["datetime"] >= before["datetime"]
            ):
                newest[row["tile_id"]] = row
    return pd.DataFrame([newest[tile_id] for tile_id in sorted(newest)])


def night(chance: random.Random, number: int) -> tuple[gpd.GeoDataFrame, tuple[str, ...]]:
    """A segment of some tiles: late or early, some invalid, of one or two scenes, some bands."""
    some = sorted(chance.sample(TILES, chance.randint(1, len(TILES))))
    frame = index(some, f"2024-06-{chance.randint(1, 4):02d}")
    scenes = [f"S2A_{chance.randint(1, 3)}", f"S2B_{number}"]
    frame["source_scenes"] = [chance.sample(scenes, chance.randint(1, 2)) for _ in some]
    frame["clear_fraction"] = np.float32(chance.random())
    frame.loc[[chance.random() < 0.2 for _ in some], "state"] = "invalid"
    return frame, BANDS if chance.random() < 0.7 else BANDS[:2]


def plain_stale(view: pd.DataFrame, tables: dict[str, pd.Series]) -> list[str]:
    return [
        row["tile_id"]
        for row in view.to_dict("records")
        if row["tile_id"] not in tables
        or tables[row["tile_id"]]["datetime"] != row["datetime"]
        or sorted(tables[row["tile_id"]]["source_scenes"]) != sorted(row["source_scenes"])
    ]


def published(catalogue: Catalogue, model: Model) -> dict[str, pd.Series]:
    return {
        row["tile_id"]: row
        for item in catalogue.items(collection_of(model.model_id))
        for _, row in published_table(catalogue, item).iterrows()
    }


def test_tiles_of_each_size_are_found(tmp_path: Path) -> None:
    catalogue = Catalogue.create(tmp_path / "catalogue")
    assert current_view(catalogue, SENSOR).sizes == {}
    counts = {1920: 5, 960: 9, 19200: 2, 240: 1}
    for size, count in counts.items():
        some = [Tile(zone, 30 + i, 300, size) for zone in (NORTH, SOUTH) for i in range(count)]
        publish_segment(catalogue, f"s{size}", index(some))
    view = current_view(catalogue, SENSOR)
    plain = [parse_tile_id(tile_id).size for tile_id in view.tile_ids.to_pylist()]
    assert set(view.sizes) == set(counts)
    for size, held in view.sizes.items():
        assert list(held) == [at for at, one in enumerate(plain) if one == size]


@pytest.mark.parametrize("seed", range(2))
def test_nights_in_any_order(tmp_path: Path, model: Model, seed: int) -> None:
    chance = random.Random(seed)
    catalogue = Catalogue.create(tmp_path / "catalogue")
    for number in range(NIGHTS):
        publish_segment(catalogue, f"s{number}", *night(chance, number))
        if number == 5:
            catalogue.withdraw(f"tiles-{SENSOR}", "s3")
        if number == 8:
            shutil.rmtree(catalogue.root / ".cache")
        for bands in (BANDS, ()):
            expected = plain_view(catalogue, bands)
            found = current_observations(catalogue, SENSOR, bands=bands)
            assert len(found) == len(expected)
            for name in found if len(found) else ():
                assert found[name].map(repr).tolist() == [
                    repr(type(a)(b)) if isinstance(a, list) else repr(b)
                    for a, b in zip(found[name], expected[name], strict=True)
                ], name
        with_all, usable = plain_view(catalogue, ()), plain_view(catalogue, BANDS)
        seen = dict(zip(usable.get("tile_id", ()), usable.get("datetime", ()), strict=True))
        lacking = [
            row["tile_id"]
            for row in with_all.to_dict("records")
            if seen.get(row["tile_id"]) != row["datetime"]
        ]
        assert passed_over(catalogue, SENSOR, 1920, BANDS)["tile_id"].tolist() == lacking
        check_night(catalogue, model, usable, chance, number)


def check_night(
    catalogue: Catalogue, model: Model, usable: pd.DataFrame, chance: random.Random, number: int
) -> None:
    """Compares what is stale and, where it is published, what the tables are then."""
    before = published(catalogue, model)
    view = current_view(catalogue, SENSOR, 1920, BANDS)
    stale = stale_observations(catalogue, model.model_id, view)
    assert stale["tile_id"].tolist() == plain_stale(usable, before)
    if number % 3 == 2 and before:
        versions = catalogue.item_ids(collection_of(model.model_id))
        older = catalogue.versions(collection_of(model.model_id), versions[0])[:-1]
        if older and older[0] not in versions:
            catalogue.roll_back(collection_of(model.model_id), older[0])
    elif chance.random() < 0.8 and len(stale):
        items = {item.id for item in catalogue.items(collection_of(model.model_id))}
        codes = np.random.default_rng(number).integers(0, 2**63, (len(stale), 1), np.uint64)
        new = code_rows(stale, codes)
        reports = publish_code_tables(catalogue, model, new)
        assert {one["zone"] for one in reports} == set(stale["tile_id"].str.split("_").str[0])
        after = published(catalogue, model)
        assert stale_observations(catalogue, model.model_id, view).empty
        assert set(after) == set(before) | set(stale["tile_id"])
        assert len({item.id for item in catalogue.items(collection_of(model.model_id))} - items)
        check_files(catalogue, model, before, new)


def check_files(
    catalogue: Catalogue, model: Model, before: dict[str, pd.Series], new: pd.DataFrame
) -> None:
    """The tables are, bit for bit, those that are written of all rows at once."""
    rows = {**before, **{row["tile_id"]: row for _, row in new.iterrows()}}
    everything = pd.DataFrame(rows.values()).assign(model_id=model.model_id)
    everything["code_0"] = everything["code_0"].astype(np.uint64)
    for item in catalogue.items(collection_of(model.model_id)):
        zone = everything[everything["tile_id"].str.startswith(item.properties["grid:code"])]
        whole = catalogue.root / ".whole.parquet"
        write_code_table(whole, zone, model.bits, SENSOR)
        assert catalogue.asset_path(item, "embeddings").read_bytes() == whole.read_bytes()
        lon, lat = zone_box(zone)
        assert np.allclose(item.bbox, [lon[0], lat[0], lon[1], lat[1]], atol=1e-5)


def zone_box(zone: pd.DataFrame) -> tuple[tuple[float, float], tuple[float, float]]:
    by_id = {tile.id: tile for tile in TILES}
    bounds = np.array([by_id[tile_id].footprint.bounds for tile_id in zone["tile_id"]])
    low, high = bounds.min(0), bounds.max(0)
    return (low[0], high[2]), (low[1], high[3])
