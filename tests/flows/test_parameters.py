import json
from typing import Any

import jsonschema
import pytest
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from data_catalog.errors import AreaError, GridError, SensorError
from data_catalog.sensors import get_sensor, known_sensors
from flows.backfill import backfill
from flows.bands import bands_for
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.nightly import nightly
from flows.parameter_base import Parameters
from flows.parameters import (
    IngestFlowParameters,
    NightlyParameters,
    RehashFlowParameters,
    TrainParameters,
)
from flows.rehash import rehash
from flows.train import train
from rshash.errors import CodeError, FeatureError

FLOWS = [ingest, train, rehash, backfill, nightly, evaluate]


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_every_field_of_a_form_is_explained(flow) -> None:
    schema = parameter_schema(flow)
    json.dumps(schema.model_dump())
    models = [d for d in schema.definitions.values() if d.get("type") == "object"]
    assert models
    for model in models:
        fields = dict(model["properties"])
        for box in [field for field in fields.values() if field.get("type") == "object"]:
            fields |= box.get("properties", {})
        for name, field in fields.items():
            assert field.get("title"), name
            assert len(field.get("description", "")) > 15, name
            assert "anyOf" not in field, f"{name} has a choice of None in place of a plain field"


def form_of(model: type[Parameters]) -> dict[str, Any]:
    return model.model_json_schema()["properties"]


def test_a_form_begins_with_what_matters_and_puts_the_rest_into_boxes() -> None:
    form = form_of(NightlyParameters)
    assert list(form)[:5] == ["area", "period", "sensors", "catalog", "source"]
    boxes = ["learning", "labelling", "features", "drift", "quality_gate", "running"]
    assert list(form)[-6:] == boxes
    assert list(form["learning"]["properties"])[:2] == ["method", "bits"]
    assert "anyOf" not in form["model"] and form["learning"]["properties"]["clusters"]["minimum"]
    shown = set(form) | {name for box in form.values() for name in box.get("properties", ())}
    assert shown - set(boxes) == set(NightlyParameters.model_fields)


def test_what_a_form_sends_is_taken_out_of_its_boxes() -> None:
    form = form_of(NightlyParameters)
    sent = {"area": "9,48,9.1,48.1", "learning": {"bits": 32}, "quality_gate": {}}
    jsonschema.validate(sent, {"properties": form, "additionalProperties": False})
    night = NightlyParameters(area=sent["area"], bits=32)
    assert NightlyParameters.model_validate(sent) == night
    assert night.form() == {"area": sent["area"], "learning": {"bits": 32}}
    with pytest.raises(ValidationError, match="learning"):
        RehashFlowParameters.model_validate({"learning": {"bits": 32}})


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"area": " "}, "area"),
        ({"period": "June"}, "period"),
        ({"sensors": ["sentinel-2"]}, "sensors"),
        ({"tile_size": 1000}, "tile_size"),
        ({"learning": {"bits": 12}}, "bits"),
        ({"learning": {"method": "itq"}}, "method"),
        ({"quality_gate": {"minimum_balance": 0.6}}, "minimum_balance"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_form_refuses_what_it_can(wrong: dict[str, Any], where: str) -> None:
    schema = NightlyParameters.model_json_schema()
    jsonschema.validate(given := {"area": "9,48,9.1,48.1"}, schema)
    with pytest.raises(jsonschema.ValidationError) as refused:
        jsonschema.validate(given | wrong, schema)
    assert where in (refused.value.json_path + refused.value.message)


@pytest.mark.parametrize(
    "period", ["P30D", "P4W", "2024", "2024-06", "2024-06-01/2024-08-31", "../2024-08-31"]
)
def test_a_form_takes_every_kind_of_period(period: str) -> None:
    given = {"area": "9,48,9.1,48.1", "period": period}
    jsonschema.validate(given, NightlyParameters.model_json_schema())
    assert NightlyParameters.model_validate(given).period == period


def test_a_night_hands_every_flow_its_part() -> None:
    night = NightlyParameters(area="9,48,9.1,48.1", bits=32, minimum_clear=0.5, model="m")
    assert night.narrowed_to(IngestFlowParameters).minimum_clear == 0.5
    assert night.narrowed_to(TrainParameters).bits == 32
    assert night.narrowed_to(RehashFlowParameters).model == "m"


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"area": "9,88,10,89"}, AreaError, "84"),
        ({"area": "Tübingen"}, AreaError, "west,south,east,north"),
        ({"period": "2024-08-01/2024-06-01"}, AreaError, "ends before"),
        ({"sensors": ["sentinel-2"]}, SensorError, "sentinel-2-l2a"),
        ({"bits": 12}, CodeError, "12"),
        ({"tile_size": 1000}, GridError, "60"),
        ({"bands": ["red", "rededge9"]}, SensorError, "no band 'rededge9'.*rededge"),
        ({"bands": ["red", "red"]}, SensorError, "each band once"),
        ({"bands": ["rededge1"]}, SensorError, "landsat-c2-l2 has none of the bands rededge1"),
    ],
)
def test_bad_input_is_refused_before_any_work(wrong, error, says) -> None:
    given = {"area": "9,48,9.1,48.1", **wrong}
    with pytest.raises(error, match=says):
        NightlyParameters(**given)


@pytest.mark.parametrize("area", ["9,48", "9,48 9.5,48.2", "179,-17,-179,-16"])
def test_points_and_boxes_are_areas(area: str) -> None:
    assert NightlyParameters(area=area).area == area


def test_a_sensor_named_twice_counts_once() -> None:
    assert TrainParameters(sensors=["landsat-c2-l2"] * 2).sensors == ["landsat-c2-l2"]


def test_weights_are_of_all_sensors_or_of_each() -> None:
    given = {"extractor": "torchgeo", "sensors": ["sentinel-2-l2a", "landsat-c2-l2"]}
    one, each = (TrainParameters(**given, weights=names) for names in (["a"], ["a", "b"]))
    assert one.of_sensor("weights", "landsat-c2-l2") == "a"
    assert each.of_sensor("weights", "landsat-c2-l2") == "b"
    assert each.of_sensor("checkpoint", "landsat-c2-l2") is None


def test_the_catalogue_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSHASH_CATALOG", "elsewhere")
    assert RehashFlowParameters().catalog == "elsewhere"
    monkeypatch.delenv("RSHASH_CATALOG")
    assert RehashFlowParameters().catalog == "catalogue"


def test_every_sensor_takes_the_bands_that_it_has() -> None:
    default, some, everything = (
        NightlyParameters(area="9,48,9.1,48.1", bands=bands)
        for bands in ([], ["red", "nir", "nir08"], ["all"])
    )
    assert default.bands_of("landsat-c2-l2") == get_sensor("landsat-c2-l2").default_bands
    assert some.bands_of("sentinel-2-l2a") == ("red", "nir", "nir08")
    assert some.bands_of("landsat-c2-l2") == ("red", "nir08")
    assert len(everything.bands_of("sentinel-2-l2a")) == 12
    assert some.narrowed_to(IngestFlowParameters).bands == some.bands


def test_weights_read_their_own_bands_in_their_order() -> None:
    landsat = bands_for("ResNet18_Weights.LANDSAT_OLI_SR_MOCO", TrainParameters(), "landsat-c2-l2")
    assert landsat["bands"] == [
        *("coastal", "blue", "green", "red", "nir08", "swir16", "swir22"),
    ]
    assert landsat["absent"] == {}
    dofa = "DOFABase16_Weights.DOFA_MAE"
    chosen = TrainParameters(bands=["nir", "red"], sensors=["sentinel-2-l2a"])
    assert bands_for(dofa, chosen, "sentinel-2-l2a") == {"bands": ["nir", "red"]}
    assert len(bands_for(dofa, TrainParameters(), "sentinel-2-l2a")["bands"]) == 6
    croma = bands_for("CROMABase_Weights.CROMA_VIT", TrainParameters(), "sentinel-2-l2a")
    assert len(croma["bands"]) == 12 and not croma["absent"]


@pytest.mark.parametrize(
    ("weights", "bands", "says"),
    [
        ("LANDSAT_OLI_TIRS_TOA_MOCO", [], "landsat-c2-l2 never has pan, lwir11, lwir12: use other"),
        ("LANDSAT_OLI_SR_MOCO", ["red", "blue"], "--bands leaves out coastal, green, nir08"),
    ],
)
def test_weights_that_a_sensor_lacks_bands_for_are_refused(weights, bands, says) -> None:
    parameters = TrainParameters(bands=bands, sensors=["landsat-c2-l2"])
    with pytest.raises(FeatureError, match=says):
        bands_for(f"ResNet18_Weights.{weights}", parameters, "landsat-c2-l2")


def test_the_form_names_every_sensor() -> None:
    described = IngestFlowParameters.model_fields["sensors"].description or ""
    assert [sensor.id for sensor in known_sensors() if sensor.id not in described] == []
