"""Another model takes over: zone by zone, and as one."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from decisions import decided
from night_process import Disturbance, NightProcesses
from published_world import BANDS, SENSOR, index, make_model, publish_segment, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import collection_of, published_table
from data_catalog.grid import Tile, Zone
from data_catalog.model_switch import coded_zones
from data_catalog.models import publish_model
from data_catalog.query import open_codes
from data_catalog.verification import verify
from flows import approval
from flows import backfill as module
from flows.backfill import backfill
from flows.parameters import RehashFlowParameters
from flows.quality_parameters import BackfillParameters
from flows.rehash import rehash
from rshash.errors import QualityError

pytestmark = pytest.mark.usefixtures("prefect_api")

OLD, NEW = make_model(seed=1), make_model(seed=2)
WEST, EAST = tiles(24), tiles(24, zone=Zone(33, "N"))
LENIENT = {"minimum_balance": 0.0, "minimum_distinct": 2, "minimum_agreement": 0.0}


def observe(catalogue: Catalogue, name: str, some_tiles: list[Tile], day: str) -> None:
    publish_segment(catalogue, name, index(some_tiles, day, name))
    folder = catalogue.root / f"tiles-{SENSOR}" / name / "pixels.zarr"
    array = zarr.open_group(folder, mode="r+")["reflectance"]
    assert isinstance(array, zarr.Array)
    random = np.random.default_rng(len(some_tiles))
    brightness = random.integers(1, 4000, (len(some_tiles), len(BANDS), 1, 1), np.uint16)
    array[:] = brightness + random.integers(0, 500, array.shape, np.uint16)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """Two zones with codes of the model in use, and another model without any."""
    catalogue = Catalogue.create(tmp_path / "catalogue")
    observe(catalogue, "first", [*WEST, *EAST], "2024-06-01")
    publish_model(catalogue, OLD)
    rehash(RehashFlowParameters(catalog=str(catalogue.root), **LENIENT))
    publish_model(catalogue, NEW)
    return catalogue


def parameters(catalogue: Catalogue, **given: Any) -> dict[str, Any]:
    return {"catalog": str(catalogue.root), **LENIENT, **given}


def rows_of(catalogue: Catalogue, model) -> pd.DataFrame:
    items = catalogue.items(collection_of(model.model_id))
    return pd.concat([published_table(catalogue, item) for item in items]).set_index("tile_id")


def test_a_backfill_that_is_cut_off_between_zones_goes_on(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(catalogue, OLD)
    published: list[str] = []
    publish_zone = module.publish_zone

    def publish_one(path: Path, zone: str) -> list[dict[str, Any]]:
        if published:
            raise SystemExit("cut off")
        published.append(zone)
        return publish_zone(path, zone)

    with monkeypatch.context() as cut:
        cut.setattr(module, "publish_zone", publish_one)
        with pytest.raises(SystemExit, match="cut off"):
            backfill(BackfillParameters(**parameters(catalogue)))
    assert coded_zones(catalogue, NEW.model_id) == ["32N"]
    assert open_codes(catalogue).model_id == OLD.model_id
    pd.testing.assert_frame_equal(rows_of(catalogue, OLD), before)

    # Nights go on with the model in use meanwhile.
    observe(catalogue, "second", WEST[:3], "2024-06-02")
    [night] = rehash(RehashFlowParameters(**parameters(catalogue)))
    assert night["item"] == f"{OLD.model_id}-UTM1920-32N-v2"

    report = backfill(BackfillParameters(**parameters(catalogue)))
    assert [(row["item"], row["appeared"], row["tiles"]) for row in report["published"]] == [
        (f"{NEW.model_id}-UTM1920-32N-v2", 0, len(WEST)),
        (f"{NEW.model_id}-UTM1920-33N-v1", len(EAST), len(EAST)),
    ]
    assert report["in_use"] == {"model": NEW.model_id, "in_place_of": OLD.model_id}
    assert open_codes(catalogue).model_id == NEW.model_id
    rows, theirs = rows_of(catalogue, NEW), rows_of(catalogue, OLD)
    assert (rows["datetime"] == theirs.loc[rows.index, "datetime"]).all()
    assert set(rows["model_id"]) == {NEW.model_id} and len(rows) == len([*WEST, *EAST])
    # These pixels were written when their segment was published already.
    assert {one.file.partition("/")[0] for one in verify(catalogue)} <= {f"tiles-{SENSOR}"}

    # Again there is nothing to do, and nights make codes of the new model.
    again = backfill(BackfillParameters(**parameters(catalogue)))
    assert again == {"published": [], "in_use": {"model": NEW.model_id, "in_place_of": None}}
    assert rehash(RehashFlowParameters(**parameters(catalogue))) == []
    observe(catalogue, "third", EAST[:3], "2024-06-03")
    [night] = rehash(RehashFlowParameters(**parameters(catalogue)))
    assert night["item"] == f"{NEW.model_id}-UTM1920-33N-v2"

    back = backfill(BackfillParameters(**parameters(catalogue, model=OLD.model_id)))
    assert [row["item"] for row in back["published"]] == [f"{OLD.model_id}-UTM1920-33N-v2"]
    assert open_codes(catalogue).model_id == OLD.model_id


STAGES = ("looking", "looking", "encoding", "publishing codes", "publishing codes")
"""At which a backfill is killed, at a random moment of each."""


@pytest.mark.faults
def test_a_backfill_that_is_killed_goes_on(
    catalogue: Catalogue, processes: NightProcesses, tmp_path: Path
) -> None:
    def copied(name: str) -> Catalogue:
        return Catalogue.open(shutil.copytree(catalogue.root, tmp_path / name))

    whole = copied("whole")
    undisturbed = processes.run("undisturbed-backfill", parameters(whole), flow="backfill")
    assert undisturbed.status == 0, processes.said("undisturbed-backfill")
    before, after = rows_of(catalogue, OLD), rows_of(whole, NEW)
    for seed, stage in enumerate(STAGES):
        moment = random.Random(seed).randint(1, undisturbed.moments[stage] * 9 // 10)
        cut_off, name = copied(f"killed-{seed}"), f"killed-backfill-{seed}"
        kill = Disturbance(stage, moment)
        assert processes.run(name, parameters(cut_off), kill, "backfill").status == -9, kill
        # It is killed before it switches over, or after.
        if open_codes(cut_off).model_id == OLD.model_id:
            pd.testing.assert_frame_equal(rows_of(cut_off, OLD), before)
        again = processes.run(f"after-{name}", parameters(cut_off), flow="backfill")
        assert again.status == 0, processes.said(f"after-{name}")
        assert open_codes(cut_off).model_id == NEW.model_id
        pd.testing.assert_frame_equal(rows_of(cut_off, NEW), after)


def test_a_model_whose_codes_fail_is_not_switched_to(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    impossible = parameters(catalogue, minimum_agreement=1.0)
    with pytest.raises(QualityError, match=r"Nothing was published. .*rshash evaluate --model"):
        backfill(BackfillParameters(**impossible))
    assert coded_zones(catalogue, NEW.model_id) == []

    monkeypatch.setattr(approval, "SECONDS_BETWEEN_LOOKS", 0.2)
    asking = BackfillParameters(**impossible, on_failure="ask")
    outcome = decided(lambda: backfill(asking), [True, False])
    assert isinstance(outcome, QualityError)
    assert "They were rejected. The codes are published, but not in use." in str(outcome)
    assert coded_zones(catalogue, NEW.model_id) == ["32N", "33N"]
    assert open_codes(catalogue).model_id == OLD.model_id
