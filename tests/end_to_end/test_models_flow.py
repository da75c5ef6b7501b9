"""A second model on what two nights fetched: trained, compared, switched to."""

import json
import shutil
import time
from pathlib import Path

import httpx
import pytest
from demo_nights import WORLD, Nights

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import collection_of
from data_catalog.errors import QueryError
from data_catalog.query import open_codes
from flows.catalog_commands import list_contents
from flows.checks import check_evaluate
from flows.parameters import (
    CatalogParameters,
    EvaluateParameters,
    NightlyParameters,
    TrainParameters,
)
from flows.quality_parameters import BackfillParameters

QUERY = WORLD.all_tiles[14].id


@pytest.fixture(scope="module")
def catalog(nights: Nights, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of the two nights' catalogue, with a second model."""
    from flows.train import train

    folder = tmp_path_factory.mktemp("models") / "catalogue"
    shutil.copytree(nights.folder / "catalogue", folder)
    train(TrainParameters(catalog=str(folder), clusters=4, bits=32))
    return str(folder)


def models(catalog: str) -> list[str]:
    return Catalogue.open(catalog).model_ids()


def test_training_changes_no_answer(nights: Nights, catalog: str) -> None:
    from flows.nightly import nightly

    before, after = open_codes(nights.catalogue), open_codes(Catalogue.open(catalog))
    assert after.similar(QUERY).equals(before.similar(QUERY))
    report = nightly(NightlyParameters(**nights.parameters | {"catalog": catalog}))
    assert (report["published"], report["retraining"]) == ([], None)
    assert Catalogue.open(catalog).item_ids(collection_of(models(catalog)[1])) == []


def test_a_candidate_without_codes_is_compared_with_the_model_in_use(
    catalog: str, tmp_path: Path
) -> None:
    from flows.evaluate import evaluate

    old, new = models(catalog)
    found = evaluate(EvaluateParameters(catalog=catalog, model=new, output=tmp_path / "report"))
    assert all({old, new, "better"} <= row.keys() for row in found["figures"])
    assert f"`rshash backfill --model {new}`" in found["verdict"]
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.startswith(f"# {new} beside {old}") and found["verdict"].splitlines()[1] in text
    figures = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (figures["candidate"], figures["other"]) == (new, old)
    assert set(figures["side_by_side"]["statistics"]) == {old, new}
    with pytest.raises(QueryError, match="cannot be compared with itself"):
        check_evaluate(EvaluateParameters(catalog=catalog, model=new, against=new))


def test_a_night_says_why_training_anew_is_proposed(
    nights: Nights, catalog: str, prefect_api: str
) -> None:
    from flows.nightly import nightly

    _, new = models(catalog)
    # That one tile lies beyond 99 % of the training tiles is no drift, but for these limits.
    strict = {"drift_fall": 0.0, "drift_unfamiliar": 0.0, "model": new, "catalog": catalog}
    report = nightly(NightlyParameters(**nights.parameters | strict))
    assert [row["item"] for row in report["published"]] == [f"{new}-UTM1920-32N-v1"]
    assert report["retraining"].startswith("Retraining is proposed, because")
    assert "share of unfamiliar tiles 0.0278 over 36 tiles" in report["retraining"]
    assert nights.reports[1]["published"] and nights.reports[1]["retraining"] is None

    wanted = {"event": {"name": ["rshash.retraining.proposed"]}}
    deadline = time.monotonic() + 60
    while not (events := _events(prefect_api, wanted)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert events[0]["resource"]["prefect.resource.id"] == f"rshash.model.{new}"
    assert "unfamiliar" in events[0]["payload"]["reasons"][0]


def test_the_new_model_takes_over(catalog: str, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.backfill import backfill

    old, new = models(catalog)
    assert open_codes(Catalogue.open(catalog)).model_id == old
    # The night before has made its codes already.
    report = backfill(BackfillParameters(catalog=catalog, model=new))
    assert report == {"published": [], "in_use": {"model": new, "in_place_of": old}}
    codes = open_codes(Catalogue.open(catalog))
    assert (codes.model_id, codes.bits, len(codes)) == (new, 32, len(WORLD.all_tiles))
    list_contents(parameters=CatalogParameters(catalog=catalog))
    shown = capsys.readouterr().out
    assert f"{new} (in use)" in shown and f"{old} (in use)" not in shown


def _events(prefect_api: str, wanted: dict) -> list:
    answer = httpx.post(f"{prefect_api}/api/events/filter", json={"filter": wanted}, timeout=30)
    answer.raise_for_status()
    return answer.json()["events"]
