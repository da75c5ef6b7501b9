"""Codes that are not good enough are published by nobody but a person."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from decisions import decided
from playwright.sync_api import Page, expect
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling
from published_world import BANDS, SENSOR, index, make_model, publish_segment, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import collection_of
from data_catalog.models import publish_model
from flows import approval
from flows.parameters import RehashFlowParameters
from flows.rehash import rehash
from rshash.errors import QualityError

pytestmark = pytest.mark.usefixtures("prefect_api")

COUNT = 24
IMPOSSIBLE = {"minimum_agreement": 1.0}


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    catalogue = Catalogue.create(tmp_path / "catalogue")
    publish_segment(catalogue, "one", index(tiles(COUNT)))
    segment = catalogue.root / f"tiles-{SENSOR}" / "one" / "pixels.zarr"
    array = zarr.open_group(segment, mode="r+")["reflectance"]
    assert isinstance(array, zarr.Array)
    random = np.random.default_rng(0)
    brightness = random.integers(1, 4000, (COUNT, len(BANDS), 1, 1), np.uint16)
    array[:] = brightness + random.integers(0, 500, array.shape, np.uint16)
    publish_model(catalogue, make_model())
    return catalogue


def parameters(catalogue: Catalogue, **given: Any) -> RehashFlowParameters:
    lenient = {"minimum_balance": 0.0, "minimum_distinct": 2}
    return RehashFlowParameters(catalog=str(catalogue.root), **(lenient | given))


def runs_under_way(flow: str, catalogue: Catalogue) -> list[FlowRun]:
    running = {"state": {"type": {"any_": ["RUNNING"]}}}
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter.model_validate({"name": {"any_": [flow]}}),
            flow_run_filter=FlowRunFilter.model_validate(running),
        )
    own = str(catalogue.root)
    return [run for run in runs if run.parameters["parameters"]["catalog"] == own]


def published(catalogue: Catalogue) -> list[str]:
    return catalogue.item_ids(collection_of(make_model().model_id))


def test_codes_that_fail_are_kept_and_published_once_approved(catalogue: Catalogue) -> None:
    with pytest.raises(QualityError, match=r"agreement with features .* expected at least 1"):
        rehash(parameters(catalogue, **IMPOSSIBLE))
    assert published(catalogue) == []
    [report] = rehash(parameters(catalogue, approve=True))
    assert report["tiles"] == COUNT
    assert published(catalogue) == [report["item"]]


@pytest.mark.parametrize("approve", [True, False])
def test_a_person_is_asked(
    catalogue: Catalogue, approve: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval, "SECONDS_BETWEEN_LOOKS", 0.2)
    asking = parameters(catalogue, on_failure="ask", **IMPOSSIBLE)

    def meanwhile() -> None:
        assert published(catalogue) == []
        # It keeps its turn while somebody decides: a paused run of a deployment gives it up.
        assert len(runs_under_way("rehash", catalogue)) == 1

    outcome = decided(lambda: rehash(asking), [approve], meanwhile)
    if approve:
        assert isinstance(outcome, list) and published(catalogue) == [outcome[0]["item"]]
    else:
        assert isinstance(outcome, QualityError) and "They were rejected" in str(outcome)
        assert published(catalogue) == []


def test_nobody_decides(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approval, "SECONDS_BETWEEN_LOOKS", 0.2)
    monkeypatch.setattr(approval, "SECONDS_TO_DECIDE", 1)
    with pytest.raises(QualityError, match=r"Nobody decided within a day\. Nothing was"):
        rehash(parameters(catalogue, on_failure="ask", **IMPOSSIBLE))
    assert published(catalogue) == []


def test_who_cancels_the_decision_rejects_the_codes(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approval, "SECONDS_BETWEEN_LOOKS", 0.2)

    def cancel(run: FlowRun, _: bool) -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelling())

    asking = parameters(catalogue, on_failure="ask", **IMPOSSIBLE)
    outcome = decided(lambda: rehash(asking), [False], answer=cancel)
    assert isinstance(outcome, QualityError) and "They were rejected" in str(outcome)
    assert published(catalogue) == []


@pytest.mark.parametrize("approve", [True, False])
def test_a_person_decides_in_the_browser(
    catalogue: Catalogue,
    approve: bool,
    page: Page,
    prefect_api: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(approval, "SECONDS_BETWEEN_LOOKS", 0.2)

    def by_the_form(run: FlowRun, approve: bool) -> None:
        page.goto(f"{prefect_api}/v2/runs/flow-run/{run.id}")
        page.get_by_role("button", name="Open menu").click()
        page.get_by_role("menuitem", name="Resume").click()
        form = page.get_by_role("dialog")
        expect(form.get_by_text("The codes failed the quality gate").first).to_be_visible()
        box = form.get_by_label("Approve these codes")
        if approve:
            box.click()
        form.get_by_role("button", name="Resume").click()

    asking = parameters(catalogue, on_failure="ask", **IMPOSSIBLE)
    outcome = decided(lambda: rehash(asking), [approve], answer=by_the_form)
    if approve:
        assert isinstance(outcome, list) and published(catalogue) == [outcome[0]["item"]]
    else:
        assert isinstance(outcome, QualityError) and "They were rejected" in str(outcome)
        assert published(catalogue) == []
