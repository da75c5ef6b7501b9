import signal
import sys
from pathlib import Path

import pytest
from published_world import index, make_model, publish_segment, random_codes, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import code_rows, collection_of, publish_code_tables
from data_catalog.models import publish_model
from flows import cli


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalogue, str]:
    catalogue = Catalogue.create(tmp_path_factory.mktemp("commands") / "catalogue")
    model = make_model()
    publish_model(catalogue, model)
    clouds = index(tiles(4)).assign(state="invalid", reason="cloud")
    publish_segment(catalogue, "clouds", clouds)
    for day in (1, 2):
        rows = code_rows(index(tiles(4), f"2024-06-0{day}"), random_codes(4, seed=day))
        publish_code_tables(catalogue, model, rows)
    return catalogue, f"{model.model_id}-UTM1920-32N"


@pytest.fixture
def run(world: tuple[Catalogue, str], monkeypatch, capsys):
    def run(*arguments: str) -> tuple[int, str]:
        command = ["rshash", "catalog", *arguments, "--catalog", str(world[0].root)]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, " ".join((shown.out + shown.err).split())

    return run


@pytest.mark.parametrize("command", ["list", "show", "verify", "rollback", "gc"])
def test_help_shows_an_example(run, command: str) -> None:
    code, shown = run(command, "--help")
    assert code == 0 and f"rshash catalog {command}" in shown.split("Example")[1]


def test_the_list_is_what_the_bare_command_shows(run, world) -> None:
    code, shown = run("list")
    assert code == 0 and f"{world[1]}-v2" in shown and "for SQL" in shown
    assert run() == (0, shown)


def test_an_item_is_shown_with_its_versions_and_what_changed(run, world) -> None:
    code, shown = run("show", f"{world[1]}-v2")
    assert code == 0
    for expected in (f"{world[1]}-v1", "superseded", "flipped bits", "changes-", "emb:model"):
        assert expected in shown
    code, shown = run("show", "nothing")
    assert code == 2 and "is called 'nothing'" in shown


def test_what_is_broken_is_named_and_gives_status_1(run, world) -> None:
    code, shown = run("verify")
    assert code == 0 and "4 items are as they were published" in shown
    [path] = Path(world[0].root).glob("codes-*/*-v1/codes-*.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    code, shown = run("verify")
    assert code == 1 and "but was published with" in shown and "-v1/" in shown
    assert run("verify", f"{world[1]}-v2")[0] == 0
    code, shown = run("rollback", f"{world[1]}-v1")
    assert code == 2 and "cannot be current again" in shown
    path.write_bytes(content)


def test_going_back_and_forth(run, world) -> None:
    catalogue, series = world
    collection_id = collection_of(catalogue.model_id())
    assert run("rollback", f"{series}-v1")[0] == 0
    assert catalogue.item_ids(collection_id) == [f"{series}-v1"]
    code, shown = run("rollback", f"{series}-v1")
    assert code == 2 and "current already" in shown
    assert run("rollback", collection_id, "--before", "2999-01-01")[0] == 0
    assert catalogue.item_ids(collection_id) == [f"{series}-v2"]
    code, shown = run("rollback", collection_id, "--before", "2000-01-01")
    assert code == 2 and "has no version from before 2000-01-01T00:00:00Z" in shown


def test_garbage_is_told_before_it_is_removed(run, world) -> None:
    catalogue, series = world
    collection_id = collection_of(catalogue.model_id())
    assert "Would be removed: nothing" in run("gc", "--keep", "1", "--dry-run")[1]
    assert f"{series}-v1" in run("gc", "--keep", "0", "--dry-run")[1]
    assert len(catalogue.versions(collection_id, series)) == 2
    assert f"{series}-v1" in run("gc", "--keep", "0")[1]
    assert catalogue.versions(collection_id, series) == [f"{series}-v2"]
    assert run("verify")[0] == 0
