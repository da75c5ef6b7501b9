import base64
from io import BytesIO
from pathlib import Path

from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client

from flows.artifacts import PICTURE_WIDTH, curve, inline_address, show_table, show_text


def test_a_picture_is_part_of_the_text(tmp_path: Path) -> None:
    Image.new("RGB", (2 * PICTURE_WIDTH, 400), "red").save(tmp_path / "red.png")
    kind, data = inline_address(tmp_path / "red.png").split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (PICTURE_WIDTH, 200)


def test_a_curve_goes_from_the_first_to_the_last_number() -> None:
    assert curve([8, 4, 1]) == "█▄▁"
    assert curve([3.0]) == "▁"
    long = curve([1 / n for n in range(1, 100)])
    assert (len(long), long[0], long[-1]) == (24, "█", "▁")


def test_artifacts_are_on_the_artifacts_page(prefect_api: str) -> None:
    @flow
    def report() -> None:
        show_text("some-text", "hello")
        show_table("some-table", [{"a": 1}], "Numbers")

    report()
    keys = {artifact.key for artifact in get_client(sync_client=True).read_latest_artifacts()}
    assert keys >= {"some-text", "some-table"}
