"""Models: a trained head with everything needed to make codes, as two files and no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rshash.codes import Words
from rshash.errors import ModelError, RshashError
from rshash.features import Extractor, Features, hash_content, restore_extractor
from rshash.hasher import FeatureHasher
from rshash.head import HashHead
from rshash.scaling import FeatureScaling

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WEIGHTS_FILE = "weights.safetensors"
DESCRIPTION_FILE = "model.json"
_FORMAT = 1


@dataclass(frozen=True)
class Model(FeatureHasher):
    """Makes codes from the tiles of one sensor.

    Attributes:
        method: How it was trained, such as "mrhash".
        primary_sensor: The sensor whose tiles it reads.
        secondary_sensors: The sensors that took part in training only.
        tile_size: Side of its tiles in metres.
        extractor: The frozen features.
        scaling: The scaling of the features.
        head: The trained head.
        training: How it came about, as JSON; it has no part in the model's ID.
    """

    method: str
    primary_sensor: str
    secondary_sensors: tuple[str, ...]
    tile_size: int
    extractor: Extractor
    scaling: FeatureScaling
    head: HashHead
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def bits(self) -> int:
        """Length of its codes."""
        return self.head.sizes["bits"]

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the primary sensor that it reads, in order."""
        return self.extractor.bands

    @property
    def model_id(self) -> str:
        """Method, bits and a hash of the content: two models with one ID make the same codes."""
        digest = hash_content(self._description(), self._tensors())
        return f"{self.method}-{self.bits}-{digest[:10]}"

    def features(self, tiles: NDArray[np.float32]) -> Features:
        """Features, float32 (n, d), of reflectance tiles (n, band, y, x); NaN is no data."""
        return self.extractor(tiles)

    def encode(self, tiles: NDArray[np.float32]) -> Words:
        """Codes, uint64 (n, words), of reflectance tiles (n, band, y, x); NaN is no data."""
        return self.encode_features(self.features(tiles))

    def save(self, folder: Path) -> None:
        """Writes the weights and the description into a folder, which is made if missing."""
        from safetensors.torch import save

        weights = save(self._tensors())
        description = {
            "format": _FORMAT,
            "model_id": self.model_id,
            **self._description(),
            "training": self.training,
            "weights": {"file": WEIGHTS_FILE, "sha256": hashlib.sha256(weights).hexdigest()},
        }
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS_FILE).write_bytes(weights)
        (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Model:
        """Reads a model that `save` wrote.

        Raises:
            ModelError: A file is missing or damaged, or its content is not what its ID says.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        folder = Path(folder)
        description, weights = _read(folder)
        try:
            tensors = load(weights)
            # No memory is taken for a head of any size before its tensors are compared with it.
            with torch.device("meta"):
                head = HashHead(**description["head"])
            head.load_state_dict(_under("head.", tensors), assign=True)
            model = cls(
                method=description["method"],
                primary_sensor=description["primary_sensor"],
                secondary_sensors=tuple(description["secondary_sensors"]),
                tile_size=description["tile_size"],
                extractor=restore_extractor(
                    description["extractor"], _under("extractor.", tensors)
                ),
                scaling=FeatureScaling(**_arrays("scaling.", tensors)),
                head=head.eval(),
                training=description["training"],
            )
        except (
            KeyError,
            TypeError,
            ValueError,
            AssertionError,
            RuntimeError,
            SafetensorError,
            RshashError,
        ) as error:
            raise ModelError(f"The model in {folder} cannot be rebuilt: {error}.") from error
        if model.model_id != description["model_id"]:
            raise ModelError(
                f"The model in {folder} says it is {description['model_id']}, "
                f"but its content is {model.model_id}: fetch it again."
            )
        return model

    def _description(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "bits": self.bits,
            "primary_sensor": self.primary_sensor,
            "secondary_sensors": list(self.secondary_sensors),
            "bands": list(self.bands),
            "tile_size": self.tile_size,
            "extractor": self.extractor.spec(),
            "head": self.head.spec(),
        }

    def _tensors(self) -> dict[str, Tensor]:
        return {
            **{f"extractor.{name}": value for name, value in self.extractor.tensors().items()},
            **_scaling_tensors(self.scaling),
            **{f"head.{name}": value for name, value in self.head.state_dict().items()},
        }


class Training(Protocol):
    """What every method's training gives."""

    @property
    def method(self) -> str:
        """Name of the method, such as "mrhash"."""

    @property
    def settings(self) -> DataclassInstance:
        """The settings it ran with."""

    @property
    def n_tiles(self) -> int:
        """Tiles trained on."""

    @property
    def head(self) -> HashHead:
        """The trained head."""

    @property
    def scaling(self) -> FeatureScaling:
        """The scaling of the primary source's features."""

    @property
    def losses(self) -> dict[str, list[float]]:
        """Mean loss of each epoch by stage."""


def build_model(
    training: Training,
    extractor: Extractor,
    *,
    primary_sensor: str,
    secondary_sensors: Sequence[str] = (),
    tile_size: int,
) -> Model:
    """Makes a model of a training's head and the extractor whose features it was trained on.

    Where training tuned the extractor from pixels, give the tuned one.

    Raises:
        ModelError: The extractor's vectors have another length than the head reads.
    """
    expected = len(training.scaling.mean)
    if extractor.dimensions != expected:
        raise ModelError(
            f"The training read features of length {expected}, but extractor {extractor.id} gives "
            f"{extractor.dimensions}: use the extractor of the training's primary source."
        )
    return Model(
        method=training.method,
        primary_sensor=primary_sensor,
        secondary_sensors=tuple(secondary_sensors),
        tile_size=tile_size,
        extractor=extractor,
        scaling=training.scaling,
        head=training.head,
        training={
            "n_tiles": training.n_tiles,
            "settings": asdict(training.settings),
            "final_losses": {stage: losses[-1] for stage, losses in training.losses.items()},
            "classes": list(getattr(training, "classes", ())),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    path = folder / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text())
        form = description["format"]
        name, expected = description["weights"]["file"], description["weights"]["sha256"]
        if name != WEIGHTS_FILE:
            raise ModelError(f"{path} names {name!r} as its weights: expected {WEIGHTS_FILE}.")
        weights_path = folder / WEIGHTS_FILE
        weights = weights_path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(
            f"{error.filename} is missing: a model is a folder with {DESCRIPTION_FILE} and "
            f"{WEIGHTS_FILE}."
        ) from error
    except OSError as error:
        raise ModelError(f"The model in {folder} cannot be read: {error}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"{path} does not describe a model: {error!r}.") from error
    if form != _FORMAT:
        raise ModelError(f"{path} has format {form}, but this version reads format {_FORMAT}.")
    found = hashlib.sha256(weights).hexdigest()
    if found != expected:
        raise ModelError(
            f"{weights_path} is damaged: its SHA-256 should be {expected}, but is {found}. "
            "Fetch the model again."
        )
    return description, weights


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _arrays(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.numpy() for name, tensor in _under(prefix, tensors).items()}


def _scaling_tensors(scaling: FeatureScaling) -> dict[str, Tensor]:
    tensors = {"scaling.mean": torch.from_numpy(scaling.mean)}
    if scaling.projection is not None:
        tensors["scaling.projection"] = torch.from_numpy(scaling.projection)
    return tensors
