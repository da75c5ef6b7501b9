"""Areas, catalogues and secrets that are blocks of a real Prefect server."""

import json
import os
import sqlite3
from pathlib import Path

import pytest
import shapely
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.context import get_run_context

from data_catalog.errors import AreaError, CatalogueError
from flows.parameters import CatalogParameters, IngestParameters
from flows.publish_command import PublishParameters
from flows.saved import everything, remove, save
from flows.saved_commands import area, catalogue, saved, source, stac_api
from flows.up_parameters import UpParameters
from rshash.errors import RshashError

pytestmark = pytest.mark.usefixtures("prefect_api")

BOX = "9,48,9.1,48.1"
SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is provided meanwhile is gone afterwards."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(variable, "")
    for variable in ("PC_SDK_SUBSCRIPTION_KEY", "RSHASH_STAC_API_TOKEN", "AWS_REGION"):
        monkeypatch.setenv(variable, "")


def test_an_area_is_saved_and_used_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    area("a-box", BOX)
    assert "saved:a-box" in capsys.readouterr().out
    assert IngestParameters(area="saved:a-box").area == BOX
    assert {"kind": "area", "name": "a-box", "is": BOX, "with": ""} in everything()
    area("a-box", "1,2,3,4")
    assert IngestParameters(area="saved:a-box").area == "1,2,3,4"
    remove("area", "a-box")
    with pytest.raises(RshashError, match=r"no area 'a-box' saved .* `rshash saved area a-box"):
        IngestParameters(area="saved:a-box")


def test_an_area_west_of_greenwich_is_no_option() -> None:
    west = "-70.9,-33.6,-70.4,-33.2"
    _, bound, _ = saved.parse_args(["area", "andes", west])
    assert bound.args == ("andes", west)


def test_of_a_file_its_content_is_saved(tmp_path: Path) -> None:
    polygon = {"type": "Polygon", "coordinates": [[[9, 48], [9.1, 48], [9.1, 48.1], [9, 48]]]}
    (tmp_path / "it.geojson").write_text(json.dumps(polygon))
    (tmp_path / "it.csv").write_text("lon,lat\n9,48\n9.1,48.1\n")
    area("a-file", str(tmp_path / "it.geojson"))
    assert json.loads(IngestParameters(area="saved:a-file").area) == polygon
    area("a-file", str(tmp_path / "it.csv"))
    assert json.loads(IngestParameters(area="saved:a-file").area)["type"] == "MultiPoint"


def test_nonsense_is_not_saved() -> None:
    with pytest.raises(AreaError, match="west,south,east,north"):
        area("nowhere", "nowhere at all")
    with pytest.raises(RshashError, match="lower-case"):
        save("area", "Tübingen", BOX)
    with pytest.raises(CatalogueError, match="no address"):
        stac_api("ours", "stac.example.com")


def test_secrets_come_from_blocks_and_are_seen_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"{SECRET}-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", SECRET)
    monkeypatch.setenv("RSHASH_STAC_API_TOKEN", SECRET)
    catalogue("europe", "s3://embeddings/europe")
    source("pc", "planetary-computer")
    stac_api("ours", "https://stac.example.com")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("PC_SDK_SUBSCRIPTION_KEY", "")
    monkeypatch.setenv("RSHASH_STAC_API_TOKEN", "")

    @flow
    def uses_secrets(parameters: IngestParameters) -> str:
        get_run_logger().info("%s", parameters)
        create_markdown_artifact(str(parameters), key="parameters")
        assert os.environ["AWS_SECRET_ACCESS_KEY"] == os.environ["PC_SDK_SUBSCRIPTION_KEY"]
        assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9000"
        assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET
        return str(get_run_context().flow_run.id)

    given = IngestParameters.model_construct(area=BOX, catalog="saved:europe", source="saved:pc")
    run_id = uses_secrets(given.model_dump())
    run = get_client(sync_client=True).read_flow_run(run_id)
    assert run.parameters["parameters"]["catalog"] == "saved:europe"
    assert CatalogParameters(catalog="saved:europe").catalog == "s3://embeddings/europe"
    assert PublishParameters(to="saved:ours").to == "https://stac.example.com"
    assert os.environ["RSHASH_STAC_API_TOKEN"] == SECRET
    assert SECRET not in capsys.readouterr().out + str(everything())
    assert SECRET not in database(Path(os.environ["PREFECT_HOME"]))


def database(home: Path) -> str:
    """Everything that the server keeps, as text."""
    with sqlite3.connect(f"file:{home / 'prefect.db'}?mode=ro", uri=True) as connection:
        return "\n".join(connection.iterdump())


def test_a_catalogue_that_the_environment_names_is_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalogue("europe", "s3://embeddings/europe")
    monkeypatch.setenv("RSHASH_CATALOG", "saved:europe")
    assert CatalogParameters().catalog == "s3://embeddings/europe"
    with pytest.raises(RshashError, match="--catalog saved:europe: the Prefect server"):
        UpParameters()


def test_an_area_of_more_than_half_a_megabyte_is_a_subflows_parameter() -> None:
    @flow
    def inner(parameters: IngestParameters) -> int:
        return len(parameters.area)

    @flow
    def outer(area: str) -> int:
        return inner(IngestParameters(area=area))

    ring = shapely.Point(9, 48).buffer(1, quad_segs=8000).exterior
    save("area", "outline", shapely.to_geojson(shapely.Polygon(ring)))
    assert outer("saved:outline") > 600_000
