"""Every way to learn a model, on what two nights fetched, and what can be asked of its codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from demo_nights import WORLD, Nights, checksums
from safetensors.torch import save_file

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import collection_of, published_table
from data_catalog.errors import CatalogueError, QueryError
from data_catalog.model_switch import switch_model
from data_catalog.models import load_model
from data_catalog.query import open_codes
from data_catalog.training import plan_training
from flows import cli
from flows.checks import check_evaluate, check_rehash, check_train
from flows.learning import extractor_for
from flows.parameters import EvaluateParameters, RehashFlowParameters, TrainParameters
from rshash import distributed
from rshash.ahcl import AhclSettings
from rshash.errors import LabelError, RshashError
from rshash.labels import TileLabels

KILLED = """
import os, signal
from flows.cli import main
from rshash.checkpoints import Checkpoint

save = Checkpoint.save

def saved_and_killed(*arguments, **options):
    save(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = saved_and_killed
main()
"""

TILES = sorted(tile.id for tile in WORLD.all_tiles)
PRIMARY = "sentinel-2-l2a"


@pytest.fixture
def catalog(nights: Nights, tmp_path: Path) -> str:
    """A copy of the two nights' catalogue, features cached."""
    shutil.copytree(nights.folder / "catalogue", tmp_path / "catalogue")
    return str(tmp_path / "catalogue")


def rehashed(catalog: str) -> tuple[Catalogue, Any]:
    from flows.rehash import rehash

    catalogue = Catalogue.open(catalog)
    newest = catalogue.latest_model_id()
    (published,) = rehash(RehashFlowParameters(catalog=catalog, model=newest))
    (item,) = catalogue.items(collection_of(published["item"].rsplit("-", 3)[0]))
    return catalogue, published_table(catalogue, item).set_index("tile_id")


def state_of_trainings(catalogue: Catalogue) -> list[str]:
    """What trainings left behind, beside the lock that they share."""
    folder = catalogue.root / ".cache" / "training"
    return [path.name for path in folder.iterdir() if path.name != ".lock"]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rshash", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_a_model_learns_from_a_table_of_labels(catalog: str, tmp_path: Path) -> None:
    from flows.train import train

    labelled = TILES[:-6]
    lines = [f"{tile_id},{'west' if i < 15 else 'east'}" for i, tile_id in enumerate(labelled)]
    (tmp_path / "labels.csv").write_text("\n".join(["tile_id,label", *lines]))
    parameters = {"method": "ahcl", "labels": str(tmp_path / "labels.csv"), "bits": 16}
    model_id = train(TrainParameters(catalog=catalog, **parameters))
    catalogue, table = rehashed(catalog)
    assert model_id.startswith("ahcl-16-")
    assert load_model(catalogue, model_id).secondary_sensors == ()
    learned = table["code_source"] == "learned"
    assert list(table.index) == TILES
    assert list(table.index[learned]) == labelled
    assert set(table["code_source"]) == {"learned", "network"}
    codes = open_codes(catalogue, model_id)
    assert set(codes.similar(labelled[0], k=10)["tile_id"]) <= set(labelled[:15])
    assert state_of_trainings(catalogue) == []


def test_the_published_weights_of_ahcl_follow_the_number_of_labelled_tiles(
    catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    lines = [f"{tile_id},{'west' if i < 15 else 'east'}" for i, tile_id in enumerate(TILES[:25])]
    (tmp_path / "labels.csv").write_text("\n".join(["tile_id,label", *lines]))
    given = ["--method", "ahcl", "--labels", str(tmp_path / "labels.csv"), "--preset", "paper"]
    assert command(monkeypatch, "train", "--catalog", catalog, *given) == 0
    catalogue = Catalogue.open(catalog)
    settings = load_model(catalogue, catalogue.latest_model_id()).training["settings"]
    assert settings["quantisation_weight"] == 200 / 25
    assert settings["schedule"] == "steps"


def test_labels_of_tiles_that_were_never_clear_are_refused(nights: Nights) -> None:
    extractor = extractor_for(TrainParameters(), PRIMARY)
    labels = TileLabels(("UTM1920-32N_0001_0001",), ("a", "b"), np.array([[True, False]]))
    with pytest.raises(LabelError, match=f"{PRIMARY} has clearly seen none of the 1 labelled"):
        plan_training(
            nights.catalogue,
            {PRIMARY: extractor},
            lambda n_tiles: AhclSettings.paper(n_tiles=n_tiles),
            1920,
            labels=labels,
        )


def test_a_table_of_other_tiles_is_refused_before_any_work(catalog: str, tmp_path: Path) -> None:
    from flows.train import train

    (tmp_path / "labels.csv").write_text("tile_id,label\nUTM1920-32N_0001_0001,a\n")
    parameters = {"method": "ahcl", "labels": str(tmp_path / "labels.csv")}
    with pytest.raises(LabelError, match="line 2, tile UTM1920-32N_0001_0001"):
        train(TrainParameters(catalog=catalog, **parameters))


def test_a_model_learns_from_the_pseudo_labels_of_another(catalog: str) -> None:
    from flows.train import train

    teacher = Catalogue.open(catalog).latest_model_id()
    assert teacher and teacher.startswith("mrhash")
    model_id = train(TrainParameters(catalog=catalog, method="ahcl", labels="pseudo"))
    catalogue, table = rehashed(catalog)
    assert catalogue.latest_model_id() == model_id
    assert set(table["code_source"]) == {"learned"}
    classes = load_model(catalogue, model_id).training["classes"]
    assert 2 <= len(classes) <= 8 and all(name.isdecimal() for name in classes)


def test_a_model_learns_from_land_cover_and_is_evaluated_by_it(
    nights: Nights, catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("RSHASH_CATALOG", catalog)
    train = ["train", "--method", "ahcl", "--labels", "land-cover:esa-worldcover"]
    assert command(monkeypatch, *train, "--source", nights.source) == 0
    catalogue, table = rehashed(catalog)
    assert "land-cover-esa-worldcover" in catalogue.collections()
    assert "learned" in set(table["code_source"])
    switch_model(catalogue, str(catalogue.latest_model_id()))
    capsys.readouterr()
    report = tmp_path / "report"
    labels = ["--labels", "land-cover-esa-worldcover"]
    assert command(monkeypatch, "evaluate", *labels, "--output", str(report)) == 0
    shown = capsys.readouterr().out
    for text in ("symmetric", "asymmetric", "float cosine", "mean AP", str(report)):
        assert text in shown
    figures = json.loads((report / "report.json").read_text())
    assert figures["bits"] == 64 and "learned codes" in figures["statistics"]
    assert any("learned from labels" in note for note in figures["notes"])
    assert (report / "precision_recall.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tile_size": 960}, "has no tiles of 960 m .*: it has tiles of 1920 m, which --tile-size"),
        ({"clusters": 19}, "36 tiles are too few for 19 clusters"),
        (
            {"extractor": "timm", "timm_architecture": "test_resnet", "checkpoint": [__file__]}
            | {"timm_options": {"pretrained": True}},
            "option pretrained of test_resnet is not allowed",
        ),
        (
            {"extractor": "torchgeo", "weights": ["ResNet50_Weights.MOCO"]},
            "torchgeo has no weights",
        ),
        ({"method": "ahcl", "labels": "codes-x"}, "No labels at 'codes-x'"),
    ],
)
def test_what_cannot_be_learned_is_refused(nights: Nights, wrong: dict[str, Any], says) -> None:
    from flows.train import train

    before = checksums(nights.folder / "catalogue")
    with pytest.raises(RshashError, match=says):
        train(TrainParameters(catalog=str(nights.folder / "catalogue"), **wrong))
    assert checksums(nights.folder / "catalogue") == before


def test_a_catalogue_that_cannot_be_written_to_is_refused(nights: Nights) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Root may write everywhere, so another user tries.
        Path(folder).chmod(0o755)
        catalogue = Path(shutil.copytree(nights.folder / "catalogue", Path(folder) / "catalogue"))
        catalogue.chmod(0o555)
        user = os.geteuid()
        os.seteuid(65534 if user == 0 else user)
        try:
            for check, parameters in (
                (check_train, TrainParameters(catalog=str(catalogue))),
                (check_rehash, RehashFlowParameters(catalog=str(catalogue))),
            ):
                with pytest.raises(CatalogueError, match=r"Permission denied.*--catalog"):
                    check(parameters)
        finally:
            os.seteuid(user)
            catalogue.chmod(0o755)


def test_codes_are_evaluated_without_labels(nights: Nights, tmp_path: Path) -> None:
    from flows.evaluate import evaluate

    catalog = str(nights.folder / "catalogue")
    found = evaluate(EvaluateParameters(catalog=catalog, output=tmp_path / "report"))
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["method"] == "mrhash" and report["database_tiles"] == len(TILES)
    changed = nights.reports[1]["published"][0]["changed"]
    assert report["flipped_tiles"] == pytest.approx(changed / len(TILES), abs=1e-6)
    assert {"agreement", "codes or features"} <= found["figures"][0].keys()
    assert "mean AP" not in found["figures"][0]


def test_an_evaluation_that_cannot_be_is_refused(nights: Nights, catalog: str, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RshashError, match=r"--output .*file is a file"):
        check_evaluate(EvaluateParameters(catalog=catalog, output=tmp_path / "file"))
    codes = collection_of(nights.catalogue.model_id())
    shutil.rmtree(Path(catalog) / codes)
    with pytest.raises(QueryError, match="rshash rehash"):
        check_evaluate(EvaluateParameters(catalog=catalog))


def test_two_processes_learn_together(catalog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.train import train

    started = []

    def launch(arguments: Any, processes: int, receive: Any) -> None:
        started.append(processes)
        real(arguments, processes, receive)

    real = distributed.launch
    monkeypatch.setattr(distributed, "launch", launch)
    model_id = train(TrainParameters(catalog=catalog, clusters=4, bits=16, processes=2))
    assert started == [2]
    catalogue, table = rehashed(catalog)
    assert catalogue.latest_model_id() == model_id
    assert list(table.index) == TILES
    assert table["code_0"].nunique() >= 4
    assert state_of_trainings(catalogue) == []


def test_the_extractor_is_tuned_from_pixels(catalog: str, tmp_path: Path) -> None:
    from flows.train import train

    checkpoint = tmp_path / "network.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), checkpoint)
    network = {"timm_architecture": "test_resnet", "checkpoint": [str(checkpoint)]}
    given = {"catalog": catalog, "sensors": ["landsat-c2-l2"], "clusters": 4, "bits": 16}
    parameters = TrainParameters(**given, extractor="timm", **network, from_pixels=True, patience=1)
    tuned = load_model(Catalogue.open(catalog), train(parameters)).extractor
    frozen = extractor_for(parameters, "landsat-c2-l2")
    assert tuned.spec() == frozen.spec()
    assert tuned.id != frozen.id


def test_a_killed_training_goes_on_and_gives_what_an_uninterrupted_one_gives(
    catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from flows.train import train

    whole = tmp_path / "whole"
    shutil.copytree(catalog, whole)
    arguments = ["train", "--catalog", catalog, "--method", "ahcl", "--labels", "pseudo"]
    program = [sys.executable, "-c", KILLED, *arguments]
    run = subprocess.run(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert run.returncode == -signal.SIGKILL, run.stdout
    assert command(monkeypatch, *arguments) == 0
    shown = capsys.readouterr()
    assert "resuming after epoch" in shown.err
    assert state_of_trainings(Catalogue.open(catalog)) == []
    assert shown.out.strip() == train(
        TrainParameters(catalog=str(whole), method="ahcl", labels="pseudo")
    )
