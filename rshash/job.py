"""Training jobs: a training described by files, run in this process or in several at once.

    python -m rshash.job job.json [PID]

trains what a job file describes. Started by torchrun, its processes share the work. Progress goes
to stdout as one JSON object a line. With the ID of a process it ends when that one does.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rshash import distributed
from rshash.errors import RshashError, TrainingError
from rshash.head import HashHead
from rshash.mrhash import MrHashTraining, train_mrhash
from rshash.mrhash_settings import MrHashSettings
from rshash.process_end import end_with
from rshash.progress import Progress, ReportProgress
from rshash.scaling import FeatureScaling
from rshash.streaming import FeatureFile

if TYPE_CHECKING:
    from rshash.ahcl import AhclTraining

DESCRIPTION_FILE = "training.json"
TENSORS_FILE = "training.safetensors"
_FORMAT = 1


@dataclass(frozen=True)
class TrainingJob:
    """A training from files to files.

    Attributes:
        method: "mrhash" or "ahcl".
        settings: The method's settings, as JSON; those left out have their defaults.
        features: .npy files of float16 or float32 (n, d_s), unscaled, the primary source first;
            AHCL takes one.
        output: Folder that gets the result, see `load_training`.
        labels: .npy file of bool (n, classes); AHCL only.
        classes: The labels' classes, in order.
        checkpoint: Folder that keeps the state after every epoch, if any.
    """

    method: Literal["mrhash", "ahcl"]
    settings: dict[str, Any]
    features: Sequence[str]
    output: str
    labels: str | None = None
    classes: Sequence[str] = ()
    checkpoint: str | None = None

    def save(self, path: Path) -> None:
        """Writes the job as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> TrainingJob:
        """Reads a job that `save` wrote.

        Raises:
            TrainingError: The file is missing or describes no job.
        """
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(f"{path} does not describe a training job: {error}.") from error


def run_job(
    job: TrainingJob, progress: ReportProgress | None = None, processes: int = 1
) -> MrHashTraining | AhclTraining:
    """Trains and writes the result into the job's output folder.

    Args:
        job: What to train.
        progress: Called after every epoch.
        processes: More than one are started by torchrun and share the work, each with a GPU of its
            own where there are GPUs.

    Returns:
        What training gave, as read back from the output folder.

    Raises:
        RshashError: The job cannot be trained, see `train_mrhash` and `train_ahcl`.
    """
    if processes == 1:
        _train(job, progress)
        return load_training(Path(job.output))
    check_processes(processes)
    failures: list[str] = []

    def receive(message: dict[str, Any]) -> None:
        if "error" in message:
            failures.append(message["error"])
        elif progress is not None:
            progress(Progress(**message))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        job.save(path)
        try:
            arguments = ["rshash.job", str(path), str(os.getpid())]
            distributed.launch(arguments, processes, receive)
        except TrainingError as error:
            if failures:
                raise TrainingError(failures[0]) from error
            raise
    return load_training(Path(job.output))


def check_processes(processes: int) -> None:
    """Refuses more processes than there are GPUs, where there are any.

    Raises:
        TrainingError: There are too few GPUs.
    """
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise TrainingError(
            f"{processes} processes need a GPU each, but there are {torch.cuda.device_count()}."
        )


def load_training(folder: Path) -> MrHashTraining | AhclTraining:
    """Reads what a training job wrote.

    Raises:
        TrainingError: A file is missing or damaged.
    """
    from safetensors.numpy import load

    folder = Path(folder)
    try:
        description = json.loads((folder / DESCRIPTION_FILE).read_text())
        content = (folder / TENSORS_FILE).read_bytes()
        if hashlib.sha256(content).hexdigest() != description["sha256"]:
            raise ValueError(f"{TENSORS_FILE} does not match its checksum")
        if description["format"] != _FORMAT:
            raise ValueError(f"it has format {description['format']}, not {_FORMAT}")
        return _restore(description, load(content))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise TrainingError(
            f"The training in {folder} cannot be read: {error}. Train it again."
        ) from error


def main(arguments: Sequence[str]) -> int:
    """Runs the job of a file, telling progress and errors on stdout."""
    path, *launchers = arguments
    for launcher in launchers:
        end_with(int(launcher))
    try:
        with distributed.process_group():
            _train(TrainingJob.load(Path(path)), lambda progress: _tell(asdict(progress)))
    except RshashError as error:
        _tell({"error": str(error)})
        return 1
    return 0


def _tell(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _train(job: TrainingJob, progress: ReportProgress | None) -> None:
    features = [FeatureFile.open(Path(path)) for path in job.features]
    checkpoint = None if job.checkpoint is None else Path(job.checkpoint)
    try:
        training: MrHashTraining | AhclTraining
        if job.method == "mrhash":
            settings = _settings(MrHashSettings, job.settings)
            training = train_mrhash(features, settings, progress=progress, checkpoint=checkpoint)
        elif job.method == "ahcl":
            training = _train_ahcl(job, features, progress, checkpoint)
        else:
            raise TrainingError(f"The methods are mrhash and ahcl, but found {job.method!r}.")
    finally:
        for file in features:
            file.close()
    if distributed.is_main():
        _save(training, Path(job.output))


def _train_ahcl(
    job: TrainingJob,
    features: list[FeatureFile],
    progress: ReportProgress | None,
    checkpoint: Path | None,
) -> AhclTraining:
    from rshash.ahcl import AhclSettings, train_ahcl
    from rshash.labels import TileLabels

    if len(features) != 1 or job.labels is None:
        raise TrainingError(
            f"AHCL learns from one source's features and labels, but found {len(features)} "
            f"sources and {'labels' if job.labels else 'no labels'}."
        )
    try:
        values = np.load(job.labels, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise TrainingError(f"The labels in {job.labels} cannot be read: {error}.") from error
    labels = TileLabels(tuple(map(str, range(len(values)))), tuple(job.classes), values)
    settings = _settings(AhclSettings, job.settings)
    return train_ahcl(features[0], labels, settings, progress=progress, checkpoint=checkpoint)


def _settings(kind: type[Any], values: dict[str, Any]) -> Any:
    unknown = sorted(values.keys() - {field.name for field in fields(kind)})
    if unknown:
        raise TrainingError(f"{kind.__name__} has no setting {', '.join(unknown)}.")
    return kind(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    )


def _save(training: MrHashTraining | AhclTraining, folder: Path) -> None:
    from safetensors.numpy import save

    arrays = {f"head.{name}": value.numpy() for name, value in training.head.state_dict().items()}
    arrays["scaling.mean"] = training.scaling.mean
    if training.scaling.projection is not None:
        arrays["scaling.projection"] = training.scaling.projection
    learned = "probabilities" if training.method == "mrhash" else "codes"
    arrays[learned] = getattr(training, learned)
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    description = {
        "format": _FORMAT,
        "method": training.method,
        "settings": asdict(training.settings),
        "n_tiles": training.n_tiles,
        "classes": getattr(training, "classes", ()),
        "head": training.head.spec(),
        "losses": training.losses,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TENSORS_FILE).write_bytes(content)
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1) + "\n")


def _restore(
    description: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> MrHashTraining | AhclTraining:
    head = HashHead(**description["head"])
    head.load_state_dict(
        {name: torch.from_numpy(value) for name, value in _under("head.", arrays).items()}
    )
    common = {
        "n_tiles": description["n_tiles"],
        "head": head.eval(),
        "scaling": FeatureScaling(**_under("scaling.", arrays)),
        "losses": description["losses"],
    }
    if description["method"] == "mrhash":
        return MrHashTraining(
            settings=_settings(MrHashSettings, description["settings"]),
            probabilities=arrays["probabilities"],
            **common,
        )
    from rshash.ahcl import AhclSettings, AhclTraining

    return AhclTraining(
        settings=_settings(AhclSettings, description["settings"]),
        codes=arrays["codes"],
        classes=tuple(description["classes"]),
        **common,
    )


def _under(prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # All is written. A thread of torch's that meets the interpreter's end aborts the process, and
    # torchrun would take the training for failed.
    os._exit(status)
