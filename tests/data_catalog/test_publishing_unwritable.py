"""Code tables that cannot be written: the disk is full, or may only be read."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed_publishing import PLACES, night, nights_of
from published_world import index, make_model, publish_segment

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import publish_code_tables
from data_catalog.errors import CatalogueError
from data_catalog.models import publish_model
from data_catalog.verification import verify
from rshash.model import Model


def mount(*arguments: str | Path) -> None:
    command = ["mount", "-t", "tmpfs", *arguments]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-o", "size=4m", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def model() -> Model:
    return make_model()


@pytest.fixture
def catalogue(disk: Path, model: Model) -> Catalogue:
    catalogue = Catalogue.create(disk / "catalogue")
    publish_model(catalogue, model)
    clouds = index(PLACES).assign(state="invalid", reason="cloud")
    publish_segment(catalogue, "clouds", clouds)
    publish_code_tables(catalogue, model, night(1))
    return catalogue


@pytest.mark.parametrize("free", range(0, 48, 8), ids=lambda free: f"{free} KiB free")
def test_a_full_disk_leaves_the_last_version_and_room_lets_it_go_on(
    disk: Path, catalogue: Catalogue, model: Model, free: int
) -> None:
    (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - free * 1024))
    with pytest.raises(CatalogueError, match=r"No space left on device.*make room"):
        publish_code_tables(catalogue, model, night(2))
    assert set(nights_of(catalogue.root, model.model_id)) <= {1, 2}
    assert verify(catalogue) == []
    (disk / "other").unlink()
    publish_code_tables(catalogue, model, night(2))
    assert nights_of(catalogue.root, model.model_id) == [2, 2]
    assert verify(catalogue) == []


def test_a_disk_that_may_only_be_read_is_read(
    disk: Path, catalogue: Catalogue, model: Model
) -> None:
    mount("-o", "remount,ro", "tmpfs", disk)
    with pytest.raises(CatalogueError, match=r"Read-only file system.*folder writable"):
        publish_code_tables(catalogue, model, night(2))
    with pytest.raises(CatalogueError, match="Nothing can be published"):
        catalogue.check_writable()
    assert nights_of(catalogue.root, model.model_id) == [1, 1] and verify(catalogue) == []
