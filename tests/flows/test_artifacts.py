import base64
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.context import get_run_context

from flows.artifacts import (
    PICTURE_WIDTH,
    inline_address,
    loss_curves,
    one_page,
    show_table,
    show_text,
)


def test_a_picture_is_part_of_the_text(tmp_path: Path) -> None:
    Image.new("RGB", (2 * PICTURE_WIDTH, 400), "red").save(tmp_path / "red.png")
    kind, data = inline_address(tmp_path / "red.png").split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (PICTURE_WIDTH, 200)


def test_losses_are_drawn_a_plot_for_each_stage() -> None:
    one = loss_curves({"hash": [3.0, 2.0, 1.0]}).convert("L")
    two = loss_curves({"autoencoder": [2.0, 1.0], "hash": [3.0, 2.0, 1.0]}).convert("L")
    assert one.size == two.size and one.width <= PICTURE_WIDTH
    # Of one plot the middle is empty paper, where two have the second one's axis.
    middle = slice(two.width // 2 - 20, two.width // 2 + 80)
    dark = [(np.asarray(picture)[:, middle] < 100).sum() for picture in (one, two)]
    assert dark[1] > dark[0]


def artifacts_of(flow_run_id: str) -> dict[str, Any]:
    found = get_client(sync_client=True).read_artifacts(
        flow_run_filter=FlowRunFilter(id={"any_": [flow_run_id]})
    )
    return {artifact.key: artifact for artifact in found}


def test_artifacts_are_on_the_page_of_their_run_with_a_summary(prefect_api: str) -> None:
    secret = "https://a.example/B04.tif?sig=abc"

    @flow
    def report() -> str:
        show_text("some-text", "# Hello\n\nworld", "What it says.")
        show_table("some-table", [{"a": 1, "b": f"x|{secret}"}], f"Numbers of {secret}")
        return str(get_run_context().flow_run.id)

    found = artifacts_of(report())
    assert found["some-text"].description == "What it says."
    assert "| 1 | x\\|https://a.example/B04.tif |" in found["some-table"].data
    assert found["some-table"].description == "Numbers of https://a.example/B04.tif"
    assert "sig" not in found["some-table"].data


def test_flows_inside_may_share_one_page(prefect_api: str) -> None:
    @flow
    def part() -> None:
        show_text("a-part", "part")

    @flow
    def whole(shared: bool) -> str:
        with one_page() if shared else nullcontext():
            part()
        return str(get_run_context().flow_run.id)

    assert set(artifacts_of(whole(shared=True))) == {"a-part"}
    assert set(artifacts_of(whole(shared=False))) == set()


def test_a_sensor_of_any_id_has_its_artifacts(prefect_api: str) -> None:
    @flow
    def shows() -> str:
        show_text("invalid-tiles-my_camera.v2", "# Invalid")
        return str(get_run_context().flow_run.id)

    assert list(artifacts_of(shows())) == ["invalid-tiles-my-camera-v2"]
