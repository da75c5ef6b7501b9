"""Training as a service: epochs that can be watched, ended at any time, and resumed."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rshash import distributed
from rshash.checkpoints import Checkpoint
from rshash.distributed import training_device
from rshash.errors import CheckpointError, TrainingError
from rshash.progress import Progress, ReportProgress


@dataclass(frozen=True)
class TrainingRun:
    """How a training runs, beside what it learns.

    Attributes:
        seed: Seed of everything random.
        progress: Called after every epoch, in the main process.
        checkpoint: Where the training's state is saved after every epoch.
        device: Where it computes: the GPU where there is one.
        losses: Mean loss of each epoch by stage, filled while it runs.
    """

    seed: int
    progress: ReportProgress | None = None
    checkpoint: Checkpoint | None = None
    device: torch.device = field(default_factory=training_device)
    losses: dict[str, list[float]] = field(default_factory=dict)


def run_epochs(
    run: TrainingRun,
    stage: str,
    epochs: int,
    module: nn.Module,
    optimiser: Optimizer,
    train_epoch: Callable[[int], float],
    *,
    schedule: LRScheduler | None = None,
    criterion: Callable[[], float] | None = None,
    patience: int = 5,
    n_tiles: int | None = None,
) -> None:
    """Trains a module in place for some epochs, going on after the last one saved.

    Before every epoch torch's random state is drawn anew from the seed, the stage and the epoch,
    so on the CPU a training that was ended and resumed gives what an uninterrupted one gives, bit
    for bit. The random state of the caller is left alone. The module ends in evaluation mode.

    Args:
        run: The training.
        stage: Name of the stage.
        epochs: Most passes over the tiles.
        module: Everything that the stage trains, with the caller's initial weights.
        optimiser: Steps in `train_epoch`.
        train_epoch: Trains the epoch of that number, from 1, and returns its mean loss.
        schedule: Stepped after every epoch.
        criterion: Judges the module in evaluation mode after every epoch, higher being better,
            without labels. With it training stops after `patience` epochs in a row without a
            better value, and the best epoch's weights are kept.
        patience: See `criterion`.
        n_tiles: Tiles in an epoch, for the reported rate.

    Raises:
        TrainingError: The loss or the criterion is not finite.
        CheckpointError: What is saved does not fit the module.
    """
    distributed.broadcast(module)
    state = _Epochs(module, optimiser, schedule)
    if run.checkpoint is not None:
        state.resume(run.checkpoint, stage)
    run.losses[stage] = state.losses
    with own_random_state(run.device):
        while state.epoch < epochs and state.stale < patience:
            started = time.perf_counter()
            state.epoch += 1
            _seed_epoch(run.seed, stage, state.epoch)
            module.train()
            loss = distributed.mean(train_epoch(state.epoch), run.device)
            _check_finite(f"loss of the {stage} stage", loss, state.epoch, optimiser)
            state.losses.append(loss)
            if schedule is not None:
                schedule.step()
            if criterion is not None:
                state.judge(_judgement(criterion, module, stage, state.epoch, run, optimiser))
            if run.checkpoint is not None:
                state.save(run.checkpoint, stage)
            if run.progress is not None and distributed.is_main():
                rate = n_tiles / (time.perf_counter() - started) if n_tiles else None
                run.progress(Progress(stage, state.epoch, epochs, loss, rate))
    if state.best is not None:
        module.load_state_dict(state.best)
    module.eval()


def optimise(loss: Tensor, optimiser: Optimizer, module: nn.Module, n_tiles: int = 1) -> None:
    """One step down a loss's gradient, averaged over the processes that train together.

    Args:
        loss: Of this process's share of a batch.
        optimiser: Takes the step.
        module: What is optimised.
        n_tiles: Tiles that the loss is the mean of, by which the processes' gradients count.
            Together they are then those of the whole batch; a loss that is no mean over tiles
            takes care of that itself, see `distributed.as_share_mean`. Without it all shares count
            the same.
    """
    optimiser.zero_grad()
    loss.backward()
    distributed.average_gradients(module, n_tiles)
    optimiser.step()


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision: bfloat16 on a GPU, and on a CPU that has instructions for it."""
    if multiplied_precision(device) == torch.bfloat16:
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def multiplied_precision(device: torch.device) -> torch.dtype:
    """The precision in which `autocast` multiplies."""
    halved = device.type == "cuda" or _cpu_multiplies_bfloat16()
    return torch.bfloat16 if halved else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    # Without the instructions it would be emulated, and slower than float32.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class _Epochs:
    """State of a stage between two epochs."""

    def __init__(
        self, module: nn.Module, optimiser: Optimizer, schedule: LRScheduler | None
    ) -> None:
        self._module, self._optimiser, self._schedule = module, optimiser, schedule
        self.epoch = 0
        self.losses: list[float] = []
        self.best: dict[str, Tensor] | None = None
        self.best_value = -math.inf
        self.stale = 0

    def judge(self, value: float) -> None:
        if value > self.best_value:
            self.best_value, self.stale = value, 0
            self.best = {k: v.detach().clone() for k, v in self._module.state_dict().items()}
        else:
            self.stale += 1

    def save(self, checkpoint: Checkpoint, stage: str) -> None:
        moments, groups = _flatten(self._optimiser)
        tensors = {
            **_prefixed("module.", self._module.state_dict()),
            **_prefixed("optimiser.", moments),
            **_prefixed("best.", self.best or {}),
        }
        values = {
            "optimiser": groups,
            "schedule": None if self._schedule is None else self._schedule.state_dict(),
            "best_value": self.best_value if self.best else None,
            "stale": self.stale,
        }
        checkpoint.save(stage, self.epoch, self.losses, tensors, values)

    def resume(self, checkpoint: Checkpoint, stage: str) -> None:
        saved = checkpoint.load(stage)
        if saved is None:
            return
        values = saved.values
        try:
            self._module.load_state_dict(_under("module.", saved.tensors))
            _unflatten(self._optimiser, _under("optimiser.", saved.tensors), values["optimiser"])
            if self._schedule is not None:
                self._schedule.load_state_dict(values["schedule"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"The {stage} stage in {checkpoint.folder} is of another architecture: {error}. "
                "Use the version and settings that saved it, or another folder."
            ) from error
        self.epoch, self.losses, self.stale = saved.epoch, saved.losses, values["stale"]
        if values["best_value"] is not None:
            self.best, self.best_value = _under("best.", saved.tensors), values["best_value"]


def _judgement(
    criterion: Callable[[], float],
    module: nn.Module,
    stage: str,
    epoch: int,
    run: TrainingRun,
    optimiser: Optimizer,
) -> float:
    module.eval()
    with torch.no_grad():
        # The same number everywhere: processes that disagreed when to stop would wait for ever.
        value = distributed.mean(criterion(), run.device)
    _check_finite(f"criterion of the {stage} stage", value, epoch, optimiser)
    return value


def _check_finite(what: str, value: float, epoch: int, optimiser: Optimizer) -> None:
    if not math.isfinite(value):
        rates = sorted({group["lr"] for group in optimiser.param_groups})
        raise TrainingError(
            f"The {what} became {value} in epoch {epoch}: lower the learning rate "
            f"(it is {', '.join(f'{rate:g}' for rate in rates)})."
        )


def _seed_epoch(seed: int, stage: str, epoch: int) -> None:
    name = f"{seed} {stage} {epoch} {distributed.rank()}"
    torch.manual_seed(
        int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    )


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """A context that leaves the random state of the caller, on the CPU and a device, as it was."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield


def _flatten(optimiser: Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's state as tensors by name, and its parameter groups' settings as JSON."""
    state = optimiser.state_dict()
    tensors = {
        f"{parameter}.{name}": torch.as_tensor(value)
        for parameter, moments in state["state"].items()
        for name, value in moments.items()
        if value is not None
    }
    return tensors, state["param_groups"]


def _unflatten(
    optimiser: Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        parameter, name = key.split(".", 1)
        moments.setdefault(int(parameter), {})[name] = tensor
    optimiser.load_state_dict({"state": moments, "param_groups": groups})


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
