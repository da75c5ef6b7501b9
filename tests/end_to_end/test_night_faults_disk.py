"""A disk that gets full in the middle of a night: the run says so, and room lets the next go on."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from disturbed_nights import DisturbedWorld, assert_as_undisturbed, page_of, run_called
from night_process import Disturbance, NightProcesses

pytestmark = pytest.mark.faults

MIB = 16


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={MIB}m", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("stage", ["reading", "encoding", "publishing codes"])
def test_a_full_disk(
    stage: str, disturbed: DisturbedWorld, processes: NightProcesses, disk: Path
) -> None:
    catalogue = disturbed.after_first_night(disk / "catalogue")
    filler = disk / "other"
    name = f"full-{stage}".replace(" ", "-")
    disturbance = Disturbance(stage, 2, fill=str(filler))
    full = processes.run(name, disturbed.parameters(catalogue), disturbance)
    assert full.status == 1, processes.said(name)
    run = run_called(name)
    assert run.state is not None and run.state.is_failed()
    page = page_of(run)
    assert "No space left on device" in page and "make room" in page
    filler.unlink()
    after = processes.run(f"after-{name}", disturbed.parameters(catalogue))
    assert after.status == 0, processes.said(f"after-{name}")
    assert_as_undisturbed(catalogue, disturbed)
