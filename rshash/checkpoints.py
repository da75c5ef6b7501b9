"""Checkpoints: the saved state of a training, from which it goes on after it was ended.

A folder holds tensors in safetensors files and one JSON index that names them with their SHA-256.
The index is replaced atomically and after the files, so a training ended at any moment leaves the
state before or the state after, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rshash import distributed
from rshash.errors import CheckpointError
from rshash.streaming import Rows, blocks

INDEX_FILE = "checkpoint.json"
_FORMAT = 1

TRAINING_VERSION = 2
"""Raised by hand with every change after which a training computes something else: what was half
trained before is then not gone on with."""


@dataclass(frozen=True)
class StageState:
    """Where a stage of a training stands.

    Attributes:
        epoch: The last finished epoch.
        losses: Mean loss of each finished epoch.
        tensors: Weights and whatever else is needed to go on, on the CPU.
        values: The same for what is not a tensor, as JSON.
    """

    epoch: int
    losses: list[float]
    tensors: dict[str, Tensor]
    values: dict[str, Any] = field(default_factory=dict)


class Checkpoint:
    """Saved state of one training, in one folder.

    Of several processes that train together the main one writes and all read; all must make the
    same calls.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Opens a checkpoint, or begins one where the folder holds none.

        Args:
            folder: Made if missing.
            identity: What makes a training this one, as JSON: method, settings, shapes and
                fingerprints of the data.

        Raises:
            CheckpointError: The folder holds the state of another training or of another version's,
                or a damaged index.
        """
        self.folder = Path(folder)
        versioned = {"training_version": TRAINING_VERSION, **identity}
        self._identity = json.loads(json.dumps(versioned, default=_plain))
        self._index: dict[str, Any] = {
            "format": _FORMAT,
            "identity": self._identity,
            "kept": {},
            "stages": {},
        }
        if (self.folder / INDEX_FILE).exists():
            self._index = self._read_index()
        distributed.barrier()

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keeps a result that later stages need."""
        self._commit("kept", name, {}, tensors)

    def kept(self, name: str) -> dict[str, Tensor] | None:
        """The result of that name, on the CPU, or None before it is kept.

        Raises:
            CheckpointError: Its file is missing or damaged.
        """
        return self._read_tensors("kept", name)

    def save(
        self,
        stage: str,
        epoch: int,
        losses: list[float],
        tensors: Mapping[str, Tensor],
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves a stage after an epoch, in place of what was saved of it; see `StageState`."""
        entry = {"epoch": epoch, "losses": losses, "values": dict(values or {})}
        self._commit("stages", stage, entry, tensors)

    def load(self, stage: str) -> StageState | None:
        """What was saved last of a stage, or None.

        Raises:
            CheckpointError: Its file is missing or damaged.
        """
        tensors = self._read_tensors("stages", stage)
        if tensors is None:
            return None
        entry = self._index["stages"][stage]
        return StageState(entry["epoch"], list(entry["losses"]), tensors, dict(entry["values"]))

    def _commit(
        self, section: str, name: str, entry: dict[str, Any], tensors: Mapping[str, Tensor]
    ) -> None:
        from safetensors.torch import save

        # Beside the file that the index on disk names, never over it.
        previous = self._index[section].get(name, {}).get("file")
        file = next(
            candidate
            for candidate in (f"{section}-{name}-{slot}.safetensors" for slot in "ab")
            if candidate != previous
        )
        self._index[section][name] = {**entry, "file": file}
        if distributed.is_main():
            # Copies: safetensors refuses tensors that share memory, or are channels-last.
            content = save({key: _contiguous_copy(value) for key, value in tensors.items()})
            self._index[section][name]["sha256"] = hashlib.sha256(content).hexdigest()
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                _replace(self.folder / file, content)
                _replace(self.folder / INDEX_FILE, json.dumps(self._index, indent=1).encode())
            except OSError as error:
                raise CheckpointError(
                    f"The checkpoint in {self.folder} cannot be written: {error}. Free some space, "
                    "or make the folder writable, and train again: it goes on from there."
                ) from error

    def _read_tensors(self, section: str, name: str) -> dict[str, Tensor] | None:
        from safetensors.torch import load

        entry = self._index[section].get(name)
        if entry is None:
            distributed.barrier()
            return None
        path = self.folder / entry["file"]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}. {_START_ANEW}") from error
        found = hashlib.sha256(content).hexdigest()
        # The others' indexes lack the hashes of what the main process wrote after opening.
        if found != entry.get("sha256", found):
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 should be {entry['sha256']}, but is {found}. "
                f"{_START_ANEW}"
            )
        # Nobody writes before all have read.
        distributed.barrier()
        return load(content)

    def _read_index(self) -> dict[str, Any]:
        path = self.folder / INDEX_FILE
        try:
            index = json.loads(path.read_text())
            form, identity = index["format"], index["identity"]
            entries = [*index["kept"].values(), *index["stages"].values()]
            complete = all({"file", "sha256"} <= entry.keys() for entry in entries)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} is damaged: {error!r}. {_START_ANEW}") from error
        if form != _FORMAT or not complete:
            raise CheckpointError(
                f"{path} is not a checkpoint of format {_FORMAT}, which this version reads. "
                f"{_START_ANEW}"
            )
        differences = _differences(identity, self._identity)
        if differences:
            raise CheckpointError(
                f"{self.folder} holds the state of another training: {'; '.join(differences)}. "
                "Train with the same version, settings and data, use another folder, or delete "
                "this one to train from the start."
            )
        return index


def saved_epochs(folder: Path) -> dict[str, int]:
    """The last epoch that a checkpoint's folder holds of each stage; empty where there is none."""
    try:
        index = json.loads((folder / INDEX_FILE).read_text())
        return {stage: entry["epoch"] for stage, entry in index["stages"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


_START_ANEW = "Delete the folder to train from the start."


def fingerprint(rows: Rows) -> str:
    """SHA-256 of rows' shape, type and values, by which a checkpoint knows its data again."""
    digest = hashlib.sha256(f"{rows.shape} {rows[:1].dtype.str}".encode())
    for _, block in blocks(rows):
        digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Numpy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"A training's identity is JSON, but it holds {value!r}.")


def _differences(saved: Any, given: Any, name: str = "") -> list[str]:
    if saved == given:
        return []
    if isinstance(saved, dict) and isinstance(given, dict):
        return [
            line
            for key in sorted({*saved, *given})
            for line in _differences(
                saved.get(key), given.get(key), f"{name}.{key}" if name else key
            )
        ]
    return [f"{name} was {json.dumps(saved)} and is {json.dumps(given)}"]


def _contiguous_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
