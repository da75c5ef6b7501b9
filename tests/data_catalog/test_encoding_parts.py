import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from published_world import BANDS, SENSOR, index, make_model, publish_segment, tiles

from data_catalog import encoding_parts
from data_catalog.catalogue import Catalogue
from data_catalog.encoding import encode_observations
from data_catalog.encoding_parts import (
    EncodingPlan,
    discard,
    encode_batch,
    encoded_rows,
    only_encoding,
    plan_encoding,
)
from data_catalog.errors import CatalogueError
from data_catalog.models import publish_model
from data_catalog.observations import current_observations
from rshash.model import Model

COUNT = 300


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model()


@pytest.fixture(scope="module")
def catalogue(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Two segments of 300 tiles in all, the second with the newer observations of some."""
    catalogue = Catalogue.create(tmp_path_factory.mktemp("parts") / "catalogue")
    publish_model(catalogue, model)
    publish(catalogue, "one", COUNT, "2024-06-01")
    publish(catalogue, "two", 100, "2024-06-02")
    return catalogue


def publish(catalogue: Catalogue, name: str, count: int, day: str) -> None:
    publish_segment(catalogue, name, index(tiles(count), day))
    group = zarr.open_group(catalogue.root / f"tiles-{SENSOR}" / name / "pixels.zarr", mode="r+")
    array = group["reflectance"]
    assert isinstance(array, zarr.Array)
    random = np.random.default_rng(count)
    flat = random.integers(1, 4000, (count, len(BANDS), 1, 1), np.uint16)
    array[:] = np.broadcast_to(flat, array.shape)
    array[0] = 0  # no data: a tile without a code


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of tiles that are encoded, batch by batch, of small batches."""
    monkeypatch.setattr(encoding_parts, "BATCH_TILES", 64)
    numbers: list[int] = []

    def counted(catalogue: Catalogue, model: Model, observations: pd.DataFrame) -> pd.DataFrame:
        numbers.append(len(observations))
        return encode_observations(catalogue, model, observations)

    monkeypatch.setattr(encoding_parts, "encode_observations", counted)
    return numbers


def all_encoded(plan: EncodingPlan) -> pd.DataFrame:
    assert sum(encode_batch(plan.path, number) for number in plan.remaining) > 0
    rows = encoded_rows(EncodingPlan.load(plan.path))
    return rows.sort_values("tile_id", ignore_index=True)


def test_codes_are_those_of_encoding_all_at_once(
    catalogue: Catalogue, model: Model, encoded: list[int]
) -> None:
    observations = current_observations(catalogue, SENSOR)
    plan = plan_encoding(catalogue, model.model_id, observations)
    rows = all_encoded(plan)
    assert sum(plan.tiles) == sum(encoded) == COUNT and len(encoded) > 3
    assert max(encoded) <= 64 + 32
    expected = encode_observations(catalogue, model, observations)
    assert len(rows) == COUNT - 1
    assert rows["code_0"].nunique() > 3
    rows["source_scenes"] = rows["source_scenes"].map(list)
    pd.testing.assert_frame_equal(rows, expected[rows.columns.to_list()], check_dtype=False)
    discard(plan)
    assert list(plan.path.parent.iterdir()) == []


def test_a_run_that_was_cut_off_goes_on_with_what_is_done(
    catalogue: Catalogue, model: Model, encoded: list[int]
) -> None:
    observations = current_observations(catalogue, SENSOR)
    plan = plan_encoding(catalogue, model.model_id, observations)
    for number in plan.remaining[:2]:
        encode_batch(plan.path, number)
        encode_batch(plan.path, number)
    assert len(encoded) == 2
    with pytest.raises(CatalogueError, match=f"{len(plan.parts) - 2} of {len(plan.parts)} batches"):
        encoded_rows(plan)
    again = plan_encoding(catalogue, model.model_id, current_observations(catalogue, SENSOR))
    assert again == plan
    assert again.remaining == list(range(2, len(plan.parts)))
    all_encoded(again)
    assert sum(encoded) == COUNT
    discard(plan)


def test_a_part_is_of_these_observations_and_this_model(
    catalogue: Catalogue, model: Model, encoded: list[int]
) -> None:
    observations = current_observations(catalogue, SENSOR)
    plan = plan_encoding(catalogue, model.model_id, observations)
    all_encoded(plan)
    other = make_model(seed=2)
    assert len(plan_encoding(catalogue, other.model_id, observations).remaining) == len(plan.parts)
    # One more tile has a newer observation: its batch and the one that it is missing from.
    seen_again = observations.copy()
    seen_again.loc[250, ["segment_id", "row"]] = ["two", 99]
    remaining = plan_encoding(catalogue, model.model_id, seen_again).remaining
    assert 1 <= len(remaining) <= 3 < len(plan.parts)
    discard(plan)


def test_a_plan_that_is_gone_says_so(catalogue: Catalogue, model: Model, tmp_path: Path) -> None:
    plan = plan_encoding(catalogue, model.model_id, current_observations(catalogue, SENSOR))
    discard(plan)
    with pytest.raises(CatalogueError, match=r"is gone: .*rshash rehash"):
        encode_batch(plan.path, 0)


def test_parts_that_nobody_came_back_for_are_removed(catalogue: Catalogue, model: Model) -> None:
    observations = current_observations(catalogue, SENSOR)
    old = plan_encoding(catalogue, model.model_id, observations.iloc[:5])
    os.utime(old.path, (0, 0))
    plan = plan_encoding(catalogue, model.model_id, observations)
    assert plan.path.exists() and not old.path.exists()
    discard(plan)


def test_nothing_to_encode_gives_no_batches(catalogue: Catalogue, model: Model) -> None:
    observations = current_observations(catalogue, SENSOR)[:0]
    plan = plan_encoding(catalogue, model.model_id, observations)
    assert plan.parts == () and encoded_rows(plan).empty
    discard(plan)


def test_runs_by_one_model_take_turns(catalogue: Catalogue) -> None:
    with only_encoding(catalogue, "one"):
        with pytest.raises(BlockingIOError), only_encoding(catalogue, "one", wait=False):
            pass
        with only_encoding(catalogue, "another", wait=False):
            pass
    with only_encoding(catalogue, "one", wait=False):
        pass
