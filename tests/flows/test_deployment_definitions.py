"""The definitions that `rshash up` deploys."""

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from flows.deployments import definitions_file, rendered_definitions
from flows.parameters import NightlyParameters
from flows.up_parameters import UpParameters
from rshash.errors import RshashError

AREA = "8.7,48.3,9.4,48.7"


def rendered(tmp_path: Path, **options: Any) -> dict[str, dict[str, Any]]:
    up = UpParameters(catalog=str(tmp_path), **options)
    content = rendered_definitions(up, definitions_file())
    return {deployment["name"]: deployment for deployment in content["deployments"]}


def test_a_night_gets_what_the_options_say_in_the_boxes_of_its_form(tmp_path: Path) -> None:
    options = {"bits": 32, "runner": "processes", "minimum_balance": 0.2, "timezone": "Asia/Tokyo"}
    found = rendered(tmp_path, area=AREA, **options)
    night = found["nightly"]["parameters"]["parameters"]
    assert night == {
        "catalog": str(tmp_path),
        "area": AREA,
        "learning": {"bits": 32},
        "running": {"runner": "processes"},
        "quality_gate": {"minimum_balance": 0.2},
    }
    Draft202012Validator(NightlyParameters.model_json_schema()).validate(night)
    assert NightlyParameters.model_validate(night).bits == 32
    schedule = {"cron": "0 2 * * *", "timezone": "Asia/Tokyo", "active": True}
    assert found["nightly"]["schedules"] == [schedule]
    assert found["nightly"]["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"


def test_without_an_area_no_night_is_scheduled_but_all_forms_know_the_catalogue(
    tmp_path: Path,
) -> None:
    found = rendered(tmp_path)
    assert [one["active"] for one in found["nightly"]["schedules"]] == [False]
    for deployment in found.values():
        assert deployment["parameters"] == {"parameters": {"catalog": str(tmp_path)}}


def test_a_saved_area_is_left_to_the_night(tmp_path: Path) -> None:
    up = UpParameters(catalog=str(tmp_path), area="saved:home")
    assert up.night is None and up.night_form["area"] == "saved:home"
    up = UpParameters(catalog=str(tmp_path), area="9,48,9.1,48.1", source="saved:pc")
    assert up.night is None and up.night_form["source"] == "saved:pc"
    with pytest.raises(RshashError, match="--catalog saved:europe: the Prefect server"):
        UpParameters(catalog="saved:europe", area="saved:home")


def test_a_database_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSHASH_DATABASE", "postgres://prefect:geheim@localhost/prefect")
    up = UpParameters()
    assert up == UpParameters(database="postgres://prefect:geheim@localhost/prefect")
    assert up.database == "postgresql+asyncpg://prefect:geheim@localhost/prefect"
    assert "geheim" not in repr(up)
    with pytest.raises(RshashError, match="no address of a PostgreSQL") as refused:
        UpParameters(database="mysql://prefect:geheim@localhost/prefect")
    assert "geheim" not in str(refused.value)


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(RshashError, match="--timezone Europe/Tübingen"):
        UpParameters(timezone="Europe/Tübingen")
