"""Training in several processes, one for each GPU, started by torchrun.

Every function here also works in a process of its own, where it is the main one and alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rshash.errors import TrainingError

SECONDS_TO_END = 45
"""torchrun itself gives its processes 30."""

ERROR_LINES = 20


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the processes that torchrun started together; does nothing outside of torchrun."""
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    # Optimisers import it, and what is imported while there is a group holds on to it: its threads
    # would outlive it, and abort the process when they meet the interpreter's end.
    import torch._dynamo

    device = training_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def training_device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def is_active() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if is_active() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if is_active() else 1


def is_main() -> bool:
    """Whether this process writes files and reports progress."""
    return rank() == 0


def barrier() -> None:
    """Waits until all processes are here."""
    if is_active():
        dist.barrier()


def average_gradients(module: nn.Module, weight: float = 1.0) -> None:
    """Replaces the gradients of a module by their means over the processes.

    Args:
        module: Has gradients of the same parameters in all processes.
        weight: What this process's gradients count: tiles, where its loss is a mean over tiles.
    """
    if not is_active():
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    flat = torch.cat([flat * weight, flat.new_full((1,), weight)])
    dist.all_reduce(flat)
    parts = (flat[:-1] / flat[-1]).split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def batch_total(values: Tensor) -> Tensor:
    """Sum of a tensor over the processes; gradients flow to this process's values alone."""
    if not is_active():
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total + (values - values.detach())


def batch_size(n_tiles: int, device: torch.device) -> int:
    """Tiles of a whole batch, of which this process has a share of n."""
    if not is_active():
        return n_tiles
    return int(batch_total(torch.tensor(n_tiles, device=device)))


def as_share_mean(whole: Tensor, n_tiles: int) -> Tensor:
    """A term of a whole batch as `average_gradients` wants it of a process's share of n tiles.

    The value stays. Gradients, which are those by the share's tiles alone, grow by what the share's
    weight will take from them.
    """
    if not is_active():
        return whole
    shares = batch_size(n_tiles, whole.device) / n_tiles
    return whole.detach() + (whole - whole.detach()) * shares


def broadcast(module: nn.Module) -> None:
    """Gives all processes the main one's parameters and buffers."""
    if is_active():
        with torch.no_grad():
            for tensor in module.state_dict().values():
                broadcast_tensor(tensor)


def broadcast_tensor(tensor: Tensor) -> None:
    """Gives all processes the main one's values of a tensor, in place."""
    if is_active():
        dist.broadcast(tensor, src=0)


def mean(value: float, device: torch.device) -> float:
    """Mean of a number over the processes."""
    if not is_active():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / world_size()


def launch(
    arguments: Sequence[str], processes: int, receive: Callable[[dict[str, Any]], None]
) -> None:
    """Runs a Python module in several processes under torchrun, and waits until all are done.

    They are ended when this call is. Should this process be killed, a module has to see to that
    itself, as `rshash.job` does.

    Args:
        arguments: The module's name and its arguments.
        processes: How many.
        receive: Gets every JSON object that one of them prints as a line.

    Raises:
        TrainingError: One of them failed; the last lines of what they wrote to stderr are told.
    """
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, "-m", *torchrun, "-m", *arguments]
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert running.stdout is not None
        try:
            for line in running.stdout:
                if line.startswith("{"):
                    receive(json.loads(line))
            running.wait()
        finally:
            _end(running)
        if running.returncode:
            errors.seek(0)
            raise TrainingError(
                f"Training in {processes} processes failed with exit status "
                f"{running.returncode}:\n{_tail(errors.readlines())}"
            )


def _tail(lines: list[str]) -> str:
    # torchrun's own account of the failure follows, which is long and holds no cause.
    first = next((i for i, line in enumerate(lines) if "distributed/elastic" in line), None)
    return "".join((lines[:first] or lines)[-ERROR_LINES:])


def _end(running: subprocess.Popen[str]) -> None:
    if running.poll() is None:
        running.terminate()
        try:
            running.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
    assert running.stdout is not None
    running.stdout.close()
