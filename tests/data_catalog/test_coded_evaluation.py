import numpy as np
import pandas as pd
import pytest
import zarr
from published_world import BANDS, SENSOR, index, make_model, publish_segment, random_codes, tiles

from data_catalog import evaluation
from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import (
    code_rows,
    codes_of,
    collection_of,
    publish_code_tables,
    published_table,
)
from data_catalog.evaluation import evaluate_codes
from data_catalog.feature_cache import observation_features
from data_catalog.grid import Zone
from data_catalog.models import publish_model
from data_catalog.observations import current_observations
from rshash.report import CodedTiles, evaluate

COUNT, DRAWN = 60, 40
MODEL = make_model()
COLLECTION = collection_of(MODEL.model_id)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Two zones, of which the first has a second version; a tile was seen again since."""
    catalogue = Catalogue.create(tmp_path_factory.mktemp("evaluation") / "catalogue")
    publish_model(catalogue, MODEL)
    seen = index([*tiles(COUNT), *tiles(10, Zone(33, "N"))])
    publish_segment(catalogue, "one", seen)
    group = zarr.open_group(catalogue.root / f"tiles-{SENSOR}" / "one" / "pixels.zarr", mode="r+")
    array = group["reflectance"]
    assert isinstance(array, zarr.Array)
    flat = np.random.default_rng(0).integers(1, 4000, (len(seen), len(BANDS), 1, 1), np.uint16)
    array[:] = np.broadcast_to(flat, array.shape)
    codes = random_codes(len(seen))
    published = np.r_[0 : COUNT - 5, COUNT : len(seen)]  # five tiles appear in the second version
    publish_code_tables(catalogue, MODEL, code_rows(seen.iloc[published], codes[published]))
    codes[3:COUNT:3, 0] ^= np.uint64(0b101)
    publish_code_tables(catalogue, MODEL, code_rows(seen.iloc[3:COUNT], codes[3:COUNT]))
    publish_segment(catalogue, "two", index(tiles(1), "2024-06-02"))
    return catalogue


def whole_table(catalogue: Catalogue, version: int) -> pd.DataFrame:
    """All that a version holds, read by geopandas."""
    names = [f"{MODEL.model_id}-UTM1920-32N-v{version}", f"{MODEL.model_id}-UTM1920-33N-v1"]
    items = [catalogue.item(COLLECTION, name) for name in names]
    frames = [pd.DataFrame(published_table(catalogue, item)) for item in items]
    return pd.concat(frames).set_index("tile_id").sort_index()


@pytest.mark.parametrize("most", [DRAWN, 50_000])
def test_figures_are_those_of_whole_tables(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(evaluation, "MOST_TILES", most)
    found = evaluate_codes(catalogue)

    now, before = whole_table(catalogue, 2).drop(tiles(1)[0].id), whole_table(catalogue, 1)
    if most == DRAWN:
        now = now.sample(DRAWN, random_state=0).sort_index()
        assert f"Of {COUNT + 9} tiles {DRAWN} were drawn." in found.notes
    # A zone that stays as it was has no version before.
    common = now.index.intersection(before.index)
    common = common[common.str.contains("-32N_")]
    old, new = (codes_of(frame.loc[common], 64) for frame in (before, now))
    flips = np.bitwise_count(old ^ new).sum(axis=1)
    assert found.flipped_bits == flips.mean() > 0
    assert found.flipped_tiles == (flips > 0).mean()
    observed = current_observations(catalogue, SENSOR).set_index("tile_id", drop=False)
    observed = observed.loc[now.index].reset_index(drop=True)
    features = observation_features(catalogue, SENSOR, observed, MODEL.extractor)
    expected = evaluate("mrhash", 64, CodedTiles(codes_of(now, 64), None, features))
    assert (found.entries, found.statistics) == (expected.entries, expected.statistics)
