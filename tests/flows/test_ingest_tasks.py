import json
from pathlib import Path

import pytest
from ingesting import S2, TILE, add_granule
from tiny_source import TinySource

from data_catalog.catalogue import Catalogue
from data_catalog.errors import AreaError
from flows.ingest import plan_sensor, publish, read_blocks
from flows.parameters import IngestFlowParameters


@pytest.fixture
def parameters(tmp_path: Path) -> IngestFlowParameters:
    source = TinySource(tmp_path / "source")
    add_granule(source, "first")
    places = tmp_path / "places.csv"
    places.write_text("lon,lat\n{},{}\n".format(*TILE.centre))
    return IngestFlowParameters(
        catalog=str(tmp_path / "catalogue"),
        source=str(source.write()),
        sensors=[S2],
        bands=["red"],
        area=str(places),
        period="2024",
    )


def test_planning_writes_nothing(parameters: IngestFlowParameters, tmp_path: Path) -> None:
    assert plan_sensor.fn(parameters, S2).summary()["tiles"] == 1
    assert not (tmp_path / "catalogue").exists()


def test_a_run_whose_plan_another_has_finished_ends_well(parameters: IngestFlowParameters) -> None:
    catalogue = Catalogue.open_or_create(parameters.catalog)
    plans = [plan_sensor.fn(parameters, S2) for _ in range(2)]
    folder = plans[0].save(catalogue)
    assert read_blocks.fn(folder, S2, plans[0].block_ids)["counts"] == {"valid": 1, "invalid": 0}
    segment_id = publish.fn(parameters.catalog, S2, folder)
    # Its plan is gone, or was saved again too late: nothing is left to read.
    for _ in range(2):
        assert read_blocks.fn(folder, S2, plans[1].block_ids)["counts"] == {}
        assert publish.fn(parameters.catalog, S2, folder) == segment_id
        assert not folder.exists()
        plans[1].save(catalogue)
    assert catalogue.item_ids(f"tiles-{S2}") == [segment_id]
    assert plan_sensor.fn(parameters, S2).is_empty


def test_tile_ids_of_another_size_are_refused_with_the_size(tmp_path: Path) -> None:
    path = tmp_path / "tiles.csv"
    path.write_text("tile_id\nUTM960-32N_0360_2778\n")
    with pytest.raises(AreaError, match=r"line 2: .* add --tile-size 960"):
        IngestFlowParameters(area=str(path))
    assert IngestFlowParameters(area=str(path), tile_size=960).tile_size == 960


def test_an_area_is_text_in_a_form(parameters: IngestFlowParameters) -> None:
    again = IngestFlowParameters.model_validate(json.loads(parameters.model_dump_json()))
    assert again == parameters
