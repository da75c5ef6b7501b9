import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rshash.checkpoints import Checkpoint
from rshash.errors import CheckpointError, TrainingError
from rshash.progress import Progress
from rshash.streaming import TileStream
from rshash.training import TrainingRun, autocast, optimise, run_epochs

CPU = torch.device("cpu")
FEATURES = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
EPOCHS = 6


class KilledError(Exception):
    pass


def train(
    run: TrainingRun,
    width: int = 8,
    criterion_values: list[float] | None = None,
    rate: float = 0.05,
) -> nn.Module:
    """A network with dropout, momentum and a schedule: everything that has state."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 6))
    optimiser = torch.optim.Adam(module.parameters(), rate)
    stream = TileStream([FEATURES], 16, seed=run.seed, device=run.device)

    def train_epoch(epoch: int) -> float:
        total = 0.0
        for rows, (features,) in stream.epoch(epoch):
            loss = (module(features) - features).square().mean()
            optimise(loss, optimiser, module)
            total += loss.item() * len(rows)
        return total / stream.n_tiles

    run_epochs(
        run,
        "copying",
        EPOCHS,
        module,
        optimiser,
        train_epoch,
        schedule=torch.optim.lr_scheduler.StepLR(optimiser, 2, 0.5),
        criterion=criterion_values and (lambda: criterion_values[len(run.losses["copying"]) - 1]),
        patience=2,
        n_tiles=stream.n_tiles,
    )
    return module


def assert_same(module: nn.Module, other: nn.Module) -> None:
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(folder, {"method": "copying"})


def killed_after(epoch: int):
    def report(progress: Progress) -> None:
        if progress.epoch == epoch:
            raise KilledError

    return report


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_ended_after_any_epoch_it_resumes_to_the_same_bits(epoch: int, tmp_path: Path) -> None:
    whole = TrainingRun(seed=3, device=CPU)
    expected = train(whole)
    with pytest.raises(KilledError):
        train(TrainingRun(3, killed_after(epoch), checkpoint(tmp_path), CPU))
    steps: list[Progress] = []
    resumed = TrainingRun(3, steps.append, checkpoint(tmp_path), CPU)
    assert_same(train(resumed), expected)
    assert resumed.losses == whole.losses
    assert [step.epoch for step in steps] == list(range(epoch + 1, EPOCHS + 1))


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_training import CPU, TrainingRun, checkpoint, train
def report(progress):
    if progress.epoch == 4:
        os.kill(os.getpid(), signal.SIGKILL)
train(TrainingRun(3, report, checkpoint(Path(sys.argv[2])), CPU))
"""


def test_it_resumes_after_the_process_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)]
    assert subprocess.run(command, timeout=120).returncode == -9
    assert_same(
        train(TrainingRun(3, checkpoint=checkpoint(tmp_path), device=CPU)),
        train(TrainingRun(3, device=CPU)),
    )


def test_another_seed_trains_another_network() -> None:
    first, second = TrainingRun(3, device=CPU), TrainingRun(4, device=CPU)
    train(first), train(second)
    assert first.losses != second.losses


def test_it_leaves_the_random_state_of_its_caller_alone() -> None:
    def train_epoch(epoch: int) -> float:
        return float(torch.rand(()))

    module = nn.Linear(2, 2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run = TrainingRun(0, device=CPU)
    run_epochs(run, "drawing", 3, module, torch.optim.SGD(module.parameters()), train_epoch)
    assert torch.equal(torch.rand(3), expected)
    assert len(set(run.losses["drawing"])) == 3


@pytest.mark.parametrize("killed", [None, 1, 2, 3, 4])
def test_it_stops_early_and_keeps_the_best_epoch(killed: int | None, tmp_path: Path) -> None:
    values = [0.1, 0.5, 0.4, 0.5, 0.9, 0.9]
    if killed is not None:
        with pytest.raises(KilledError):
            train(TrainingRun(3, killed_after(killed), checkpoint(tmp_path), CPU), 8, values)
    run = TrainingRun(3, None, checkpoint(tmp_path), CPU)
    stopped = train(run, 8, values)
    assert len(run.losses["copying"]) == 4
    assert not stopped.training
    with pytest.raises(KilledError):
        train(TrainingRun(3, killed_after(2), checkpoint(tmp_path / "best"), CPU))
    saved = checkpoint(tmp_path / "best").load("copying")
    for name, value in stopped.state_dict().items():
        assert torch.equal(value, saved.tensors[f"module.{name}"])


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first = train(TrainingRun(3, None, checkpoint(tmp_path), CPU))
    again = train(TrainingRun(3, killed_after(EPOCHS), checkpoint(tmp_path), CPU))
    assert_same(first, again)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    train(TrainingRun(3, None, checkpoint(tmp_path), CPU))
    with pytest.raises(CheckpointError, match=r"copying stage .* another architecture"):
        train(TrainingRun(3, None, checkpoint(tmp_path), CPU), width=9)


def test_a_loss_that_is_not_finite_names_stage_epoch_and_rate(tmp_path: Path) -> None:
    run = TrainingRun(3, None, checkpoint(tmp_path), CPU)
    with pytest.raises(TrainingError, match=r"copying stage became (nan|inf) in epoch \d.*1e\+30"):
        train(run, rate=1e30)
    module = nn.Linear(1, 1)
    with pytest.raises(TrainingError, match="criterion of the judged stage became nan in epoch 1"):
        run_epochs(
            TrainingRun(0, device=CPU),
            "judged",
            2,
            module,
            torch.optim.SGD(module.parameters(), 0.1),
            lambda epoch: 0.0,
            criterion=lambda: float("nan"),
        )


def test_progress_tells_the_rate() -> None:
    steps: list[Progress] = []
    train(TrainingRun(3, steps.append, device=CPU))
    assert all(step.tiles_per_second > 0 for step in steps)


def test_mixed_precision_is_used_where_there_are_instructions_for_it() -> None:
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    with autocast(torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if fast else torch.float32)
