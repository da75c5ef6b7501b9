import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from free_ports import free_port

from rshash import distributed
from rshash.ahcl import AhclSettings, train_ahcl
from rshash.distributed import launch
from rshash.errors import TrainingError
from rshash.job import DESCRIPTION_FILE, TENSORS_FILE, TrainingJob, load_training, main, run_job
from rshash.labels import TileLabels
from rshash.mrhash import train_mrhash
from rshash.mrhash_settings import MrHashSettings
from rshash.progress import Progress

SETTINGS = {"bits": 16, "clusters": 4, "hashing_epochs": 6, "batch_size": 32, "hidden": 32}


def write_sources(folder: Path, n: int = 200) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(4, size=n)
    sources = [
        (3 * random.normal(size=(4, d))[labels] + random.normal(size=(n, d))).astype(np.float32)
        for d in (12, 16)
    ]
    for name, source in zip(("primary", "secondary"), sources, strict=True):
        np.save(folder / f"{name}.npy", source)
    return sources


def job_in(folder: Path, **changes) -> TrainingJob:
    return TrainingJob(
        **{
            "method": "mrhash",
            "settings": SETTINGS,
            "features": [str(folder / "primary.npy"), str(folder / "secondary.npy")],
            "output": str(folder / "output"),
            **changes,
        }
    )


def weights(training) -> dict[str, torch.Tensor]:
    return training.head.state_dict()


def test_a_job_gives_what_training_in_python_gives(tmp_path: Path) -> None:
    sources = write_sources(tmp_path)
    steps: list[Progress] = []
    found = run_job(job_in(tmp_path, checkpoint=str(tmp_path / "checkpoint")), steps.append)
    expected = train_mrhash(sources, MrHashSettings(**SETTINGS))
    for name, value in weights(expected).items():
        assert torch.equal(weights(found)[name], value)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    np.testing.assert_array_equal(found.scaling.mean, expected.scaling.mean)
    assert (found.settings, found.losses) == (expected.settings, expected.losses)
    assert (found.method, found.n_tiles) == ("mrhash", 200)
    assert [step.loss for step in steps if step.stage == "hashing"] == found.losses["hashing"]
    assert (tmp_path / "checkpoint").exists()


def test_a_jobs_settings_may_differ_by_source(tmp_path: Path) -> None:
    write_sources(tmp_path)
    found = run_job(job_in(tmp_path, settings={**SETTINGS, "components": [3, None]}))
    assert found.settings.components == (3, None)
    assert found.scaling.projection.shape == (12, 3)
    assert load_training(tmp_path / "output").settings == found.settings


def test_two_processes_share_the_work_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def noted(arguments: list[str], *rest: Any) -> None:
        started.extend(arguments)
        launch(arguments, *rest)

    monkeypatch.setattr(distributed, "launch", noted)
    aborting = "import atexit, os\nif 'LOCAL_RANK' in os.environ: atexit.register(os.abort)\n"
    (tmp_path / "sitecustomize.py").write_text(aborting)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    write_sources(tmp_path)
    alone = run_job(job_in(tmp_path))
    steps: list[Progress] = []
    together = run_job(
        job_in(tmp_path, output=str(tmp_path / "together"), checkpoint=str(tmp_path / "state")),
        steps.append,
        processes=2,
    )
    assert started[-1] == str(os.getpid()), "they are to end with this process"
    assert [step.epoch for step in steps if step.stage == "hashing"] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(
        together.losses["hashing"], alone.losses["hashing"], rtol=0.25, atol=0.05
    )
    np.testing.assert_allclose(together.probabilities, alone.probabilities, atol=0.05)


def test_an_ahcl_job_gives_learned_codes(tmp_path: Path) -> None:
    (primary, _) = write_sources(tmp_path)
    labels = np.eye(4, dtype=np.bool_)[np.arange(200) % 4]
    np.save(tmp_path / "labels.npy", labels)
    job = job_in(
        tmp_path,
        method="ahcl",
        settings={"bits": 16, "iterations": 2, "sampled": 50, "hidden": 32},
        features=[str(tmp_path / "primary.npy")],
        labels=str(tmp_path / "labels.npy"),
        classes=["water", "forest", "field", "town"],
    )
    found = run_job(job)
    expected = train_ahcl(
        primary,
        TileLabels(tuple(map(str, range(200))), tuple(job.classes), labels),
        AhclSettings(**job.settings),
    )
    np.testing.assert_array_equal(found.codes, expected.codes)
    assert found.codes.dtype == np.uint64
    assert (found.classes, found.settings) == (expected.classes, expected.settings)
    for name, value in weights(expected).items():
        assert torch.equal(weights(found)[name], value)
    with pytest.raises(TrainingError, match="found 2 sources and labels"):
        run_job(replace(job, features=job_in(tmp_path).features))
    with pytest.raises(TrainingError, match=r"nowhere\.npy cannot be read"):
        run_job(replace(job, labels="nowhere.npy"))


RANK = """
import sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from rshash import distributed
from rshash.streaming import TileStream
from rshash.training import TrainingRun, optimise, run_epochs
with distributed.process_group():
    rank = distributed.rank()
    torch.manual_seed(rank)
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2))
    features = np.random.default_rng(0).normal(size=(101, 4)).astype(np.float32)
    run = TrainingRun(0, device=torch.device("cpu"))
    stream = TileStream([features], 16, seed=0, device=run.device)
    optimiser = torch.optim.Adam(module.parameters(), 0.1)
    seen = []
    def train_epoch(epoch):
        for rows, (x,) in stream.epoch(epoch):
            seen.append(rows)
            optimise((module(x) - x).square().mean(), optimiser, module)
        return float(rank)
    run_epochs(run, "copying", 2, module, optimiser, train_epoch)
    np.savez(
        Path(sys.argv[1]) / f"{rank}.npz",
        weights=module[0].weight.detach(), rows=torch.cat(seen), loss=run.losses["copying"],
        sizes=[len(rows) for rows in seen],
    )
"""

NO_THREAD_OF_THE_GROUP_IS_LEFT = """
import time
deadline = time.monotonic() + 30
def threads():
    # Ended threads are listed for a moment, and may be gone before they are read.
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text())
        except OSError:
            pass
    return "".join(names)
while "gloo" in threads():
    assert time.monotonic() < deadline, threads()
    time.sleep(0.01)
"""


def run_together(program: str, folder: Path, *arguments: str) -> list[dict[str, np.ndarray]]:
    """What each of two processes of a program leaves in its .npz file."""
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    program += NO_THREAD_OF_THE_GROUP_IS_LEFT
    command = [sys.executable, "-c", program, str(folder), *arguments]
    running = [
        subprocess.Popen(command, env={**os.environ, **together, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    return [np.load(folder / f"{rank}.npz") for rank in (0, 1)]


def test_processes_share_every_batch_and_end_with_the_same_weights(tmp_path: Path) -> None:
    first, second = run_together(RANK, tmp_path)
    np.testing.assert_array_equal(first["weights"], second["weights"])
    np.testing.assert_array_equal(first["loss"], [0.5, 0.5])
    np.testing.assert_array_equal(second["loss"], [0.5, 0.5])
    assert (np.abs(first["sizes"] - second["sizes"]) <= 1).all()
    rows = np.sort(np.concatenate([first["rows"], second["rows"]]))
    np.testing.assert_array_equal(rows, np.repeat(np.arange(101), 2))


GRADIENTS = """
import sys
from contextlib import nullcontext
from pathlib import Path
import numpy as np, torch
from rshash import distributed, hashing
from rshash.autoencoder import MultiSourceAutoencoder
from rshash.head import HashHead
from rshash.mrhash_settings import MrHashSettings
from rshash.streaming import TileStream
from rshash.training import optimise
hashing.autocast = lambda device: nullcontext()
folder, latent_space = Path(sys.argv[1]), sys.argv[2]
with distributed.process_group():
    torch.manual_seed(0)
    settings = MrHashSettings(bits=8, latent_space=latent_space)
    autoencoder = MultiSourceAutoencoder([4, 3], 4) if latent_space == "autoencoder" else None
    module = hashing.Hashing(settings, HashHead(4, 8, 0), torch.randn(5, 4), autoencoder)
    random = np.random.default_rng(0)
    sources = [random.normal(size=(15, width)).astype(np.float32) for width in (4, 3)]
    sources[1][:10] = np.nan
    latent = torch.from_numpy(random.normal(size=(15, 4)).astype(np.float32))
    latent = torch.nn.functional.normalize(latent, dim=1)
    target = torch.softmax(torch.from_numpy(random.normal(size=(15, 5)).astype(np.float32)), 1)
    stream = TileStream(sources, 5, seed=0, device=torch.device("cpu"))
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    sizes, losses, gradients = [], [], []
    for rows, arrays in stream.epoch(1):
        given = latent[rows] if autoencoder is None else None
        loss = module.loss(arrays, target[rows], given)
        optimise(loss, optimiser, module, len(rows))
        sizes.append(len(rows))
        losses.append(loss.item() * len(rows))
        found = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
        gradients.append(torch.cat(found).numpy().copy())
    np.savez(folder / f"{distributed.rank()}.npz", sizes=sizes, losses=losses, gradients=gradients)
"""


@pytest.mark.parametrize("latent_space", ["neighbours", "autoencoder"])
def test_gradients_of_uneven_shares_are_those_of_the_whole_batch(
    latent_space: str, tmp_path: Path
) -> None:
    first, second = run_together(GRADIENTS, tmp_path, latent_space)
    assert (first["sizes"].tolist(), second["sizes"].tolist()) == ([3, 3, 3], [2, 2, 2])
    np.testing.assert_array_equal(first["gradients"], second["gradients"])
    alone = tmp_path / "alone"
    alone.mkdir()
    command = [sys.executable, "-c", GRADIENTS, str(alone), latent_space]
    subprocess.run(command, check=True, timeout=120)
    expected = np.load(alone / "0.npz")
    assert expected["sizes"].tolist() == [5, 5, 5]
    np.testing.assert_allclose(first["gradients"], expected["gradients"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(first["losses"] + second["losses"], expected["losses"], rtol=1e-5)


def test_an_interrupt_ends_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sleeper.py").write_text(
        "import json, os, time\nprint(json.dumps({'pid': os.getpid()}), flush=True)\n"
        "time.sleep(600)\n"
    )
    pids = []

    def receive(message: dict[str, int]) -> None:
        pids.append(message["pid"])
        if len(pids) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(["sleeper"], 2, receive)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_what_failed_in_the_processes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("failing.py").write_text("raise SystemExit('the disk is full')\n")
    with pytest.raises(TrainingError, match=r"in 2 processes failed(.|\n)*the disk is full"):
        launch(["failing"], 2, print)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells of others' ends")
@pytest.mark.parametrize("ended_before", [False, True])
def test_a_job_ends_with_the_process_that_started_it(ended_before: bool, tmp_path: Path) -> None:
    write_sources(tmp_path)
    endless = {**SETTINGS, "hashing_epochs": 10**6}
    job_in(tmp_path, settings=endless, output=str(tmp_path / "output")).save(tmp_path / "job.json")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as starter:
        if ended_before:
            starter.kill()
            starter.wait()
        command = [sys.executable, "-m", "rshash.job", str(tmp_path / "job.json")]
        command.append(str(starter.pid))
        with subprocess.Popen(command, stdout=subprocess.PIPE) as training:
            assert training.stdout is not None
            assert bool(training.stdout.readline()) is not ended_before
            starter.kill()
            try:
                training.communicate(timeout=60)
            finally:
                training.kill()
        assert training.returncode == 1


def test_a_jobs_error_is_told_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sources(tmp_path)
    job_in(tmp_path, settings={**SETTINGS, "clusters": 150}).save(tmp_path / "job.json")
    assert main([str(tmp_path / "job.json")]) == 1
    assert "too few for 150 clusters" in json.loads(capsys.readouterr().out)["error"]


def test_a_job_file_keeps_the_job(tmp_path: Path) -> None:
    job = job_in(tmp_path, classes=["water"], labels="labels.npy")
    job.save(tmp_path / "job.json")
    assert asdict(TrainingJob.load(tmp_path / "job.json")) == asdict(job)
    for content in ("", "[]", '{"method": "mrhash", "colour": 3}'):
        (tmp_path / "job.json").write_text(content)
        with pytest.raises(TrainingError, match=r"job\.json does not describe a training job"):
            TrainingJob.load(tmp_path / "job.json")


def test_jobs_that_cannot_be_trained_are_refused(tmp_path: Path) -> None:
    write_sources(tmp_path)
    with pytest.raises(TrainingError, match="MrHashSettings has no setting colour"):
        run_job(job_in(tmp_path, settings={"colour": 3}))
    with pytest.raises(TrainingError, match="methods are mrhash and ahcl, but found 'itq'"):
        run_job(job_in(tmp_path, method="itq"))


def test_a_damaged_result_is_refused(tmp_path: Path) -> None:
    write_sources(tmp_path)
    run_job(job_in(tmp_path, settings={**SETTINGS, "hashing_epochs": 1}))
    folder = tmp_path / "output"
    content = (folder / TENSORS_FILE).read_bytes()
    (folder / TENSORS_FILE).write_bytes(content[:-1])
    with pytest.raises(TrainingError, match=r"does not match its checksum.* Train it again"):
        load_training(folder)
    (folder / TENSORS_FILE).write_bytes(content)
    description = json.loads((folder / DESCRIPTION_FILE).read_text())
    (folder / DESCRIPTION_FILE).write_text(json.dumps({**description, "format": 9}))
    with pytest.raises(TrainingError, match="format 9"):
        load_training(folder)
    (folder / DESCRIPTION_FILE).unlink()
    with pytest.raises(TrainingError, match="cannot be read"):
        load_training(folder)
