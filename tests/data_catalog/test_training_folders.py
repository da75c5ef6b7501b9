import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_catalog.training_folders import KEEP_DAYS, reserved
from rshash.errors import TrainingError

HOLD = """
import sys, time
from pathlib import Path
from data_catalog.training_folders import reserved

with reserved(Path(sys.argv[1])):
    print("reserved", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "training" / "0123"


def seen_last(path: Path, days: float) -> None:
    seconds = time.time() - days * 86400
    os.utime(path, (seconds, seconds))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.parent.iterdir() if not path.name.startswith(".")}


def test_another_run_has_it_until_it_ends_or_is_killed(folder: Path) -> None:
    program = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "reserved\n"
        try:
            with pytest.raises(TrainingError, match=r"0123.*Wait until"), reserved(folder):
                pass
            with reserved(folder.with_name("4567")):
                pass
            assert names(folder) == {"0123.lock"}
        finally:
            other.kill()
    for _ in range(2):
        with reserved(folder):
            assert names(folder) == {"0123.lock"}
    assert names(folder) == set()


def test_a_run_that_fails_leaves_its_state_and_no_lock(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), reserved(folder):
        folder.mkdir()
        raise ZeroDivisionError
    assert names(folder) == {"0123"}


def test_what_nobody_touched_for_long_is_removed(folder: Path) -> None:
    kept = ("old", "killed", "running", "recent")
    old, killed, running, recent = (folder.with_name(name) for name in kept)
    locks = folder.with_name("killed.lock"), folder.with_name("alone.lock")
    for one in (old, killed, running, recent, folder):
        one.mkdir(parents=True)
        (one / "checkpoint.json").touch()
    for lock in locks:
        lock.touch()
    with reserved(running):
        for one in (old, killed, *locks, running, folder):
            seen_last(one, KEEP_DAYS + 1)
        seen_last(recent, KEEP_DAYS - 1)
        with reserved(folder):
            assert names(folder) == {"running", "running.lock", "recent", "0123", "0123.lock"}
            shutil.rmtree(folder)
    assert names(folder) == {"running", "recent"}
