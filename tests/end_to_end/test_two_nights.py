"""From STAC search to look-alike places: two nights on a small world, on a real Prefect server."""

import base64
import shutil
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from demo_nights import WORLD, Nights, checksums
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import collection_of, published_table
from data_catalog.errors import QueryError, SourceError
from data_catalog.models import load_model
from data_catalog.pictures import retrieval_sheet
from data_catalog.query import open_codes
from flows import cli
from flows.parameters import IngestFlowParameters, NightlyParameters, TrainParameters
from rshash.errors import ModelError, TrainingError


def test_the_first_night_publishes_a_code_for_every_tile(nights: Nights) -> None:
    (published,) = nights.reports[0]["published"]
    assert published["version"] == 1
    assert published["tiles"] == published["appeared"] == len(WORLD.all_tiles)
    codes = open_codes(nights.catalogue)
    assert list(codes.tile_ids) == sorted(tile.id for tile in WORLD.all_tiles)


def test_the_second_night_reads_and_publishes_only_what_is_new(nights: Nights) -> None:
    first, second, _ = nights.reports
    for before, after in zip(first["ingested"], second["ingested"], strict=True):
        assert 0 < after["scenes"] < before["scenes"]
        assert 0 < after["tiles"] < before["tiles"]
    (published,) = second["published"]
    assert published["version"] == 2
    assert published["appeared"] == 0
    assert 0 < published["changed"] < published["tiles"] == len(WORLD.all_tiles)


def test_tiles_that_did_not_change_keep_their_rows(nights: Nights) -> None:
    model_id = nights.catalogue.latest_model_id()
    assert model_id
    collection = collection_of(model_id)
    (item,) = nights.catalogue.items(collection)
    new = published_table(nights.catalogue, item).set_index("tile_id")
    before = nights.catalogue.item(collection, nights.reports[0]["published"][0]["item"])
    old = published_table(nights.catalogue, before).set_index("tile_id")
    same = old["datetime"] == new["datetime"]
    assert 0 < same.sum() < len(old)
    assert (old["code_0"] == new["code_0"])[same].all()
    assert (new["datetime"] > old["datetime"])[~same].all()


def test_a_night_without_new_scenes_changes_nothing(nights: Nights) -> None:
    _, second, third = nights.reports
    assert third["published"] == []
    assert [(row["scenes"], row["tiles"]) for row in third["ingested"]] == [(0, 0)] * 2
    assert len(nights.catalogue.items("tiles-sentinel-2-l2a")) == len(second["ingested"])


def shown_by(nights: Nights, number: int) -> dict[str | None, Any]:
    """The artifacts on the page of a night, by key; the first night is number 0."""
    with get_client(sync_client=True) as client:
        every = client.read_flow_runs(
            flow_filter=FlowFilter(name={"any_": ["nightly"]}), sort=FlowRunSort.START_TIME_ASC
        )
        catalog = nights.parameters["catalog"]
        runs = [run for run in every if run.parameters["parameters"].get("catalog") == catalog]
        found = client.read_artifacts(flow_run_filter=FlowRunFilter(id={"any_": [runs[number].id]}))
    return {artifact.key: artifact for artifact in found}


def picture_in(artifact: Any) -> Image.Image:
    encoded = artifact.data.partition(";base64,")[2].partition(")")[0]
    return Image.open(BytesIO(base64.b64decode(encoded)))


def test_the_page_of_a_night_tells_its_story(nights: Nights) -> None:
    first, second = shown_by(nights, 0), shown_by(nights, 1)
    stages = ("plan", "ingested", "quality", "code-tables", "changed-tiles", "similar", "nightly")
    assert set(first) >= {*stages, "training", "clusters"}
    assert set(second) >= set(stages) and "training" not in second
    (published,) = nights.reports[1]["published"]
    assert f"{published['changed']} have a new code" in second["changed-tiles"].description
    assert published["item"] in second["changed-tiles"].data
    for key in ("changed-tiles", "similar"):
        assert picture_in(second[key]).width > 600
    assert picture_in(first["training"]).width > 600
    for stage in ("read sentinel-2-l2a", "publish landsat-c2-l2", "in all"):
        assert f"| {stage} |" in first["ingested"].data
    assert "| train |" in first["nightly"].data and "| train |" not in second["nightly"].data
    assert sum(len(str(artifact.data)) for artifact in first.values()) < 500_000


def test_the_page_of_a_night_without_news_says_so(nights: Nights) -> None:
    shown = shown_by(nights, 2)
    assert shown["plan"].description == "Nothing is new."
    assert "no code changed" in shown["nightly"].description and "changed-tiles" not in shown


def newest_assets() -> dict[str, dict[str, Any]]:
    """What was told of each published collection last."""
    wanted = {"filter": {"event": {"name": ["prefect.asset.materialization.succeeded"]}}}
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/events/filter", json=wanted).json()["events"]
    return {event["resource"]["prefect.resource.name"]: event for event in reversed(found)}


def test_what_is_published_becomes_assets_with_their_origin(nights: Nights) -> None:
    codes = f"codes-{nights.catalogue.latest_model_id()}"
    published = [nights.reports[1]["published"][0]["item"]]
    deadline = time.monotonic() + 120
    # Events are told some seconds late.
    while (told := newest_assets()).get(codes, {}).get("payload", {}).get("items") != published:
        assert time.monotonic() < deadline, told
        time.sleep(1)
    assert set(told) >= {"tiles-sentinel-2-l2a", "models", codes}
    origin = {one["prefect.resource.id"] for one in told[codes]["related"]}
    assert f"{nights.catalogue.store.uri}/tiles-sentinel-2-l2a" in origin


def test_published_assets_are_never_changed(nights: Nights) -> None:
    now = checksums(nights.folder / "catalogue")
    changed = [path.name for path, sum_ in nights.checksums.items() if now.get(path) != sum_]
    assert all(name.endswith(".json") for name in changed)
    assert "weights.safetensors" not in changed


def test_look_alike_places_are_found_by_tile_id(nights: Nights, tmp_path: Path) -> None:
    codes = open_codes(nights.catalogue)
    query = WORLD.all_tiles[14].id
    similar = codes.similar(query, k=5)
    assert query not in set(similar["tile_id"])
    order = list(zip(similar["distance"], similar["tile_id"], strict=True))
    assert order == sorted(order)
    sheet = tmp_path / "similar.png"
    retrieval_sheet(nights.catalogue, codes, similar, sheet)
    with Image.open(sheet) as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 1000


def test_the_command_line_answers_a_query(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    query, picture = WORLD.all_tiles[14].id, tmp_path / "similar.png"
    monkeypatch.setenv("RSHASH_CATALOG", str(nights.folder / "catalogue"))
    monkeypatch.setattr(
        "sys.argv", ["rshash", "similar", query, "-k", "3", "--picture", str(picture)]
    )
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for tile_id in open_codes(nights.catalogue).similar(query, k=3)["tile_id"]:
        assert tile_id in shown
    assert picture.stat().st_size > 10_000


def test_a_tile_without_a_code_is_refused_with_the_nearest_that_has_one(nights: Nights) -> None:
    with pytest.raises(QueryError, match=WORLD.all_tiles[0].id):
        open_codes(nights.catalogue).similar("UTM1920-32N_0290_2760")


def test_a_search_that_finds_nothing_is_refused(nights: Nights, tmp_path: Path) -> None:
    from flows.ingest import ingest

    parameters = {**nights.parameters, "catalog": str(tmp_path / "new"), "period": "1999"}
    with pytest.raises(SourceError, match="1999-01-01"):
        ingest(IngestFlowParameters(**parameters))
    assert not (tmp_path / "new").exists()


def test_too_few_tiles_for_the_clusters_are_refused(nights: Nights) -> None:
    from flows.train import train

    with pytest.raises(TrainingError, match="128 tiles"):
        train(TrainParameters(catalog=str(nights.folder / "catalogue"), clusters=64))


def test_a_night_that_could_not_end_with_the_models_codes_is_refused(nights: Nights) -> None:
    from flows.checks import check_nightly

    check_nightly(NightlyParameters(**nights.parameters))
    for other in ({"tile_size": 960}, {"sensors": ["landsat-c2-l2"]}):
        with pytest.raises(ModelError, match="tiles of 1920 m of sentinel-2-l2a, but"):
            check_nightly(NightlyParameters(**nights.parameters | other))


def test_a_sensor_that_has_seen_nothing_does_not_stop_learning(
    nights: Nights, tmp_path: Path
) -> None:
    from flows.train import train

    shutil.copytree(nights.folder / "catalogue", tmp_path / "catalogue")
    shutil.rmtree(tmp_path / "catalogue" / "tiles-landsat-c2-l2")
    catalog = str(tmp_path / "catalogue")
    model_id = train(TrainParameters(catalog=catalog, clusters=4))
    model = load_model(Catalogue.open(catalog), model_id)
    assert (model.primary_sensor, model.secondary_sensors) == ("sentinel-2-l2a", ())


def test_a_plan_reads_nothing(nights: Nights, tmp_path: Path) -> None:
    from flows.ingest import ingest

    parameters = {**nights.parameters, "catalog": str(tmp_path / "new")}
    report = ingest(IngestFlowParameters(**parameters, plan=True))
    assert [row["tiles"] for row in report] == [len(WORLD.all_tiles)] * 2
    assert not (tmp_path / "new").exists()
