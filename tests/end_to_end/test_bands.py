"""Weights that read more bands than tiles have by default, through the flows."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo_nights import WORLD, Nights
from safetensors.torch import save_file
from torchgeo.models import get_model

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import codes_of, collection_of, published_table
from data_catalog.models import load_model
from data_catalog.observations import current_observations, passed_over, read_tiles
from flows.checks import check_nightly, check_train
from flows.parameters import (
    IngestFlowParameters,
    NightlyParameters,
    RehashFlowParameters,
    TrainParameters,
)
from rshash.errors import ModelError, TrainingError

S2 = "sentinel-2-l2a"
WEIGHTS = "ResNet18_Weights.SENTINEL2_ALL_MOCO"
TILES = sorted(tile.id for tile in WORLD.all_tiles)


@pytest.fixture
def given(nights: Nights, tmp_path: Path) -> dict[str, Any]:
    """What makes a training with such weights on a copy of the two nights' catalogue."""
    catalog = shutil.copytree(nights.folder / "catalogue", tmp_path / "catalogue")
    torch.manual_seed(0)
    network = get_model("resnet18", in_chans=13, num_classes=0)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    return {
        "catalog": str(catalog),
        "sensors": [S2],
        "extractor": "torchgeo",
        "weights": [WEIGHTS],
        "checkpoint": [str(tmp_path / "weights.safetensors")],
        "clusters": 4,
        "bits": 16,
    }


def test_weights_learn_from_all_the_bands_they_read(
    given: dict[str, Any], nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.ingest import ingest
    from flows.rehash import rehash
    from flows.train import train

    training = TrainParameters(**given)
    with pytest.raises(
        TrainingError, match=r"None of the 36 tiles .*`rshash ingest --area AREA --bands coastal"
    ):
        check_train(training)
    catalogue = Catalogue.open(given["catalog"])
    before = current_observations(catalogue, S2)
    june = {**nights.parameters, "catalog": given["catalog"], "period": "2024-06-01/2024-06-30"}
    ingest(IngestFlowParameters(**june, sensors=[S2], bands=["all"]))
    model = load_model(catalogue, train(training))
    bands = model.extractor.bands
    assert len(bands) == 12 and bands[:2] == ("coastal", "blue")
    assert model.extractor.spec()["absent"] == {"cirrus": 0.0}

    observed = current_observations(catalogue, S2, WORLD.tile_size, bands)
    newer = passed_over(catalogue, S2, WORLD.tile_size, bands)
    assert len(newer) and set(newer["segment_id"]) <= set(before["segment_id"])
    capsys.readouterr()
    rehash(RehashFlowParameters(catalog=given["catalog"], model=model.model_id))
    assert f"{len(newer)} tiles of {S2} were last seen without" in capsys.readouterr().err
    (item,) = catalogue.items(collection_of(model.model_id))
    table = published_table(catalogue, item)
    assert list(table["tile_id"]) == list(observed["tile_id"])
    assert (table["datetime"].to_numpy() == observed["datetime"].to_numpy()).all()
    features = model.extractor(read_tiles(catalogue, S2, observed, bands))
    np.testing.assert_array_equal(codes_of(table, 16), model.encode_features(features))

    night = {**nights.parameters, "catalog": given["catalog"], "sensors": [S2]}
    with pytest.raises(ModelError, match=r"makes codes from the bands coastal.*--bands all"):
        check_nightly(NightlyParameters(**night, model=model.model_id))
    check_nightly(NightlyParameters(**night, model=model.model_id, bands=["all"]))
    ingest(IngestFlowParameters(**night, bands=list(bands)))
    assert passed_over(catalogue, S2, WORLD.tile_size, bands).empty
    rehash(RehashFlowParameters(catalog=given["catalog"], model=model.model_id))
    (item,) = catalogue.items(collection_of(model.model_id))
    assert list(published_table(catalogue, item)["tile_id"]) == TILES
    assert ingest(IngestFlowParameters(**night))[0]["tiles"] == 0


def test_a_first_night_fetches_what_its_weights_read(
    given: dict[str, Any], nights: Nights, tmp_path: Path
) -> None:
    night = {**nights.parameters, **given, "catalog": str(tmp_path / "new")}
    with pytest.raises(TrainingError, match=r"made from the bands coastal.*--bands all"):
        check_nightly(NightlyParameters(**night))
    check_nightly(NightlyParameters(**night, bands=["all"]))
