"""A disk that is full in the middle of an ingest."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from two_blocks import assert_same, ingest_two_blocks, two_scenes

from data_catalog.catalogue import Catalogue
from data_catalog.errors import CatalogueError
from data_catalog.observations import current_observations

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("free", (0, 40, 300, 600, 784), ids=lambda free: f"{free} KiB free")
def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(
    disk: Path, tmp_path: Path, free: int
) -> None:
    source = str(two_scenes(tmp_path / "source").folder)
    whole = Catalogue.create(tmp_path / "whole")
    ingest_two_blocks(whole, source)
    catalogue = Catalogue.create(disk / "catalogue")
    (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - free * 1024))
    with pytest.raises(CatalogueError, match=r"No space left on device.*make room"):
        ingest_two_blocks(catalogue, source)
    assert len(current_observations(Catalogue.open(disk / "catalogue"), "sentinel-2-l2a")) == 0
    (disk / "other").unlink()
    assert ingest_two_blocks(catalogue, source).failures == {}
    assert_same(catalogue, whole)
