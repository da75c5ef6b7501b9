"""One night of a catalogue at a time, which knows the one before."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_catalog.catalogue import Catalogue
from data_catalog.errors import CatalogueError
from data_catalog.nights import only_night

KILLED = """
import os, signal, sys
from data_catalog.nights import only_night
with only_night(sys.argv[1], "killed"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_second_night_is_refused_while_one_lasts(tmp_path: Path) -> None:
    catalog = str(tmp_path / "catalogue")
    with (
        only_night(catalog, "first"),
        pytest.raises(CatalogueError, match=r"Another night is at work .*\(flow run first\)"),
        only_night(catalog, "second"),
    ):
        pass


def test_a_night_knows_the_one_before_however_that_ended(tmp_path: Path) -> None:
    catalog = str(tmp_path / "catalogue")
    with only_night(catalog, "first") as before:
        assert before is None
    with pytest.raises(ValueError, match="no"), only_night(catalog, "failed") as before:
        assert before == "first"
        raise ValueError("no")
    killed = subprocess.run([sys.executable, "-c", KILLED, catalog])
    assert killed.returncode == -9
    with only_night(catalog, "last") as before:
        assert before == "killed"


def test_a_night_may_begin_before_there_is_a_catalogue(tmp_path: Path) -> None:
    with only_night(str(tmp_path / "catalogue"), "first"):
        Catalogue.open_or_create(tmp_path / "catalogue").begin()
    assert Catalogue.open(tmp_path / "catalogue").collections() == []
