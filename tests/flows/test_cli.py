import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from flows import cli

COMMANDS = [
    "ingest",
    "train",
    "rehash",
    "backfill",
    "nightly",
    "evaluate",
    "similar",
    "tile",
    "catalog",
    "demo",
]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rshash", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command, monkeypatch, capsys) -> None:
    assert run(monkeypatch, command, "--help") == 0
    shown = capsys.readouterr().out
    assert "Example" in shown
    assert f"rshash {command}" in shown.split("Example")[1]


def test_the_version_is_the_packages(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == version("rshash")


def test_tile_tells_the_tile_of_a_place(monkeypatch, capsys) -> None:
    assert run(monkeypatch, "tile", "-70.1", "-33.2") == 0
    assert capsys.readouterr().out.strip() == "UTM1920-19S_0207_1913"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tile", "9", "88"], "84° N"),
        (["tile", "181", "10"], "Longitude 181 is outside -180 to 180"),
        (["ingest", "--area", "9,88,10,89"], "84"),
        (["ingest", "--area", "9,48,9.1,48.1", "--sensors", "sentinel-2"], "sentinel-2-l2a"),
        (["nightly", "--area", "9,48,9.1,48.1", "--bits", "63"], "63"),
        (["similar", "UTM1920-61N_0305_2770"], "UTM1920-61N_0305_2770"),
        (["similar", "nonsense"], "UTM1920-32N_0305_2770"),
        (["catalog", "--catalog", "nowhere"], "nowhere"),
        (["train", "--catalog", "nowhere"], "nowhere"),
        (["train", "--extractor", "timm"], "--checkpoint"),
        (["train", "--extractor", "torchgeo"], "--weights"),
        (["train", "--extractor", "resnet"], "torchgeo"),
        (["train", "--weights", "ResNet50_Weights.SENTINEL2_RGB_MOCO"], "--extractor mosaiks"),
        (
            ["train", "--extractor", "torchgeo", "--weights", "a", "b", "c"],
            "--weights takes one for all sensors, or one for each",
        ),
        (
            ["train", "--extractor", "torchgeo", "--weights", "a", "--checkpoint", "a.pth"],
            "--checkpoint a.pth: there is no such file",
        ),
        (["train", "--method", "ahcl"], "--labels"),
        (["train", "--method", "ahcl", "--labels", "land-cover:"], "esa-worldcover"),
        (["train", "--labels", "labels.csv"], "--labels is not for --method mrhash"),
        (
            ["train", "--method", "ahcl", "--labels", "pseudo", "--clusters", "9"],
            "--clusters is not for --method ahcl",
        ),
        (["train", "--from-pixels", "--processes", "2"], "--from-pixels"),
        (["train", "--patience", "0"], "--patience 0"),
        (
            ["nightly", "--area", "9,48,9.1,48.1", "--method", "ahcl", "--labels", "pseudo"],
            "learn one first with `rshash train`",
        ),
        (
            ["nightly", "--area", "9,48,9.1,48.1", "--method", "ahcl", "--labels", "none.csv"],
            "No labels at 'none.csv'",
        ),
        (["nightly", "--area", "9,48,9.01,48.01"], "too few to learn from"),
        (["evaluate", "--catalog", "nowhere"], "nowhere"),
        (["rehash", "--catalog", "nowhere"], "nowhere"),
        (["similar", "UTM1920-32N_0305_2770", "--catalog", "nowhere"], "nowhere"),
        (
            ["ingest", "--area", "9,48,9.1,48.1", "--minimum-clear", "3"],
            "--minimum-clear 3: Input should be less than or equal to 1",
        ),
        (
            ["catalog", "frob"],
            "'frob' is no command and no option here: see `rshash catalog --help`",
        ),
        (["saved", "frob"], "'frob' is no command and no option here: see `rshash saved --help`"),
        (["catalog", "rollback", "codes-m", "--before", "yesterday"], "such as 2026-11-20"),
        (["ingest"], "--area"),
        (["demo", "--folder", "."], "--folder"),
        (["demo", "--folder", "something"], "--folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_ends_with_a_message_and_status_2(
    arguments, says, monkeypatch, capfd, tmp_path: Path
) -> None:
    (tmp_path / "something").touch()
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    shown = capfd.readouterr()
    assert says in " ".join(shown.err.replace("│", " ").split())
    assert "Traceback" not in shown.out + shown.err
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def test_the_installed_command_answers() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("rshash"), "tile", "9.06", "48.52"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "UTM1920-32N_0262_2799")


def test_ctrl_c_ends_it_at_once_with_its_servers(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("rshash")), "demo", "--folder", str(tmp_path)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, process_group=0
    ) as demo:
        assert demo.stderr is not None
        while "render scenes" not in demo.stderr.readline():
            assert demo.poll() is None
        # As a terminal does: to the command and the servers that it started.
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(60) == 130
        assert "Interrupted" in demo.stderr.read()
