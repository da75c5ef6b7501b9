"""Features: networks that turn tiles into vectors.

An extractor is described by a spec, a small JSON object. `make_extractor` builds one from its spec;
`restore_extractor` rebuilds it from the spec and the tensors that a model keeps, and needs no other
file.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rshash.errors import FeatureError

Features = NDArray[np.float32]
"""Feature vectors, float32 (n, dimensions)."""

TYPICAL_PIXELS = {
    "coastal": (0.05, 0.04),
    "blue": (0.06, 0.05),
    "green": (0.08, 0.05),
    "red": (0.09, 0.06),
    "rededge1": (0.12, 0.06),
    "rededge2": (0.20, 0.09),
    "rededge3": (0.24, 0.10),
    "nir": (0.25, 0.11),
    "nir08": (0.26, 0.11),
    "nir09": (0.27, 0.11),
    "swir16": (0.20, 0.10),
    "swir22": (0.14, 0.09),
    "vv": (-11.0, 4.0),
    "vh": (-18.0, 5.0),
}
"""Mean and spread over land by band, of surface reflectance or, for radar's two polarisations, of
backscatter in decibels. Round figures: they bring the bands to one scale, for networks that have
no scale of their own."""


class Extractor(Protocol):
    """Turns the tiles of one sensor into feature vectors."""

    @property
    def id(self) -> str:
        """Its name with a hash of its content: equal IDs in one precision make equal features."""

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """What its vectors are computed in, where it runs now."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands it reads, in order."""

    @property
    def dimensions(self) -> int:
        """Length of its vectors."""

    @property
    def components(self) -> int | None:
        """Principal components to whiten its vectors to before learning; None: do not whiten."""

    @property
    def tiles_at_once(self) -> int:
        """Tiles that it computes best at once, where it runs now."""

    def spec(self) -> dict[str, Any]:
        """Its description as JSON, free of paths."""

    def tensors(self) -> dict[str, Tensor]:
        """Its weights by name, on the CPU."""

    def trainable(self) -> PixelNetwork:
        """A copy of its network to fine-tune."""

    def with_weights(self, module: PixelNetwork) -> Extractor:
        """The same extractor with the weights that its `trainable` network has now."""

    def __call__(self, tiles: NDArray[np.float32]) -> Features:
        """Features of tiles.

        Args:
            tiles: Reflectance, float32 (n, band, y, x); NaN where there is no data. Infinite
                pixels count as no data.

        Returns:
            float32 (n, dimensions); NaN for a tile that holds no data at all in some band.

        Raises:
            FeatureError: The tiles have another shape.
        """


def make_extractor(spec: Mapping[str, Any]) -> Extractor:
    """Builds an extractor from its spec, on the GPU where there is one.

    Args:
        spec: One of
            ``{"kind": "mosaiks", "bands": [...], "features": 1024, "kernel_size": 3, "bias": -1.0,
            "seed": 1, "statistics": {"red": [mean, spread], ...}}`` (statistics in reflectance;
            known bands have defaults),
            ``{"kind": "timm", "bands": ["red", "green", "blue"], "architecture": "...",
            "checkpoint": "file.safetensors", "options": {...}, "reflectance_range": [0, 0.3],
            "input_size": 224}``, or
            ``{"kind": "torchgeo", "weights": "ResNet50_Weights.SENTINEL2_ALL_MOCO", "bands": [...],
            "checkpoint": None, "absent": {"cirrus": 0.0}, "statistics": {...}}``, described in
            `rshash.extractors.torchgeo`.

    Raises:
        FeatureError: The spec or its checkpoint cannot be used.
    """
    return _build(spec, None)


def restore_extractor(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Extractor:
    """Rebuilds an extractor from what `spec()` and `tensors()` gave.

    Raises:
        FeatureError: The spec is unknown, or the tensors do not fit it.
    """
    return _build(spec, tensors)


def _build(spec: Mapping[str, Any], tensors: Mapping[str, Tensor] | None) -> Extractor:
    from rshash.extractors import KINDS

    options = dict(spec)
    kind = options.pop("kind", None)
    if kind not in KINDS:
        raise FeatureError(
            f'No extractor is of the kind {kind!r}: the spec\'s "kind" is one of {sorted(KINDS)}.'
        )
    build: Callable[..., Extractor] = KINDS[kind]
    try:
        return build(**options, tensors=tensors)
    except TypeError as error:
        raise FeatureError(f"The spec of a {kind} extractor is not usable: {error}.") from error


class FrozenExtractor:
    """What every extractor shares: a frozen network applied in batches.

    On a GPU networks run channels-last and, unless their features would suffer, in bfloat16.
    """

    batch_size = 32
    gpu_batch_size = 256
    mixed_precision = True
    components: int | None = None

    def __init__(self, spec: dict[str, Any], network: nn.Module, dimensions: int) -> None:
        self._spec = spec
        self.network = network.eval().requires_grad_(False)
        self.bands = tuple(spec["bands"])
        self.dimensions = dimensions
        digest = hash_content(spec, self.tensors())
        self.id = f"{spec['kind']}-{digest[:10]}"
        self.to("cuda" if torch.cuda.is_available() else "cpu")

    def to(self, device: torch.device | str) -> Self:
        """Moves the network to a device."""
        self.device = torch.device(device)
        layout = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        self.network.to(self.device).to(memory_format=layout)
        return self

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """What the network computes in on its device."""
        return "bfloat16" if self.mixed_precision and self.device.type == "cuda" else "float32"

    @property
    def tiles_at_once(self) -> int:
        """Tiles in a batch of the network on its device."""
        return self.gpu_batch_size if self.device.type == "cuda" else self.batch_size

    def spec(self) -> dict[str, Any]:
        """Its description as JSON, free of paths."""
        return copy.deepcopy(self._spec)

    def tensors(self) -> dict[str, Tensor]:
        """Its weights by name, on the CPU."""
        return stored_tensors(self.network)

    def __call__(self, tiles: NDArray[np.float32]) -> Features:
        """Features, float32 (n, dimensions), of tiles; see `Extractor`."""
        if tiles.ndim != 4 or tiles.shape[1] != len(self.bands):
            raise FeatureError(
                f"Extractor {self.id} reads tiles of shape (n, {len(self.bands)}, y, x) "
                f"with the bands {', '.join(self.bands)}, but found shape {tiles.shape}."
            )
        on_gpu = self.device.type == "cuda"
        size = self.tiles_at_once
        features = torch.empty(len(tiles), self.dimensions, device=self.device)
        with torch.inference_mode():
            for start in range(0, len(tiles), size):
                batch = torch.as_tensor(tiles[start : start + size])
                if on_gpu:
                    batch = batch.pin_memory().to(self.device, non_blocking=True)
                features[start : start + size] = self.apply(self.network, batch.float())
        return features.cpu().numpy()

    def apply(self, network: nn.Module, tiles: Tensor) -> Tensor:
        """Features of tiles through a network of this extractor's architecture.

        Args:
            network: Its own network, or a copy of it, on the device of the tiles.
            tiles: Reflectance, float32 (n, band, y, x); NaN where there is no data.

        Returns:
            float32 (n, dimensions), with gradients where the network's weights have them.
        """
        return self.forward(network, self.prepare(tiles))

    def prepare(self, tiles: Tensor) -> Tensor:
        """What the network reads of reflectance tiles: gaps filled, scaled and resized."""
        inputs = self._prepare(fill_nodata(tiles))
        if tiles.device.type == "cuda":
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def forward(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Features, float32 (n, dimensions), of prepared tiles."""
        device = inputs.device.type
        precision: AbstractContextManager[object] = nullcontext()
        if not self.mixed_precision:
            # Whatever the training around it uses.
            precision = torch.autocast(device, enabled=False)
        elif device == "cuda":
            precision = torch.autocast(device, torch.bfloat16)
        with precision:
            return self._forward(network, inputs).float()

    def trainable(self) -> PixelNetwork:
        """A copy of the network for fine-tuning from pixels, in evaluation mode.

        In that mode batch normalisation keeps its statistics, as small batches need.
        """
        return PixelNetwork(self, self._unfrozen(copy.deepcopy(self.network)))

    def with_weights(self, module: PixelNetwork) -> Self:
        """The same kind of extractor with the weights that a `trainable` network has now.

        Raises:
            FeatureError: The module is not such a network, or has other weights.
        """
        if not isinstance(module, PixelNetwork):
            raise FeatureError(
                f"Weights come from what {self.id}.trainable() gave, "
                f"but found a {type(module).__name__}."
            )
        tuned = restore_extractor(self.spec(), stored_tensors(module.network))
        assert isinstance(tuned, type(self))
        return tuned

    def _prepare(self, tiles: Tensor) -> Tensor:
        """The network's input, of tiles without gaps."""
        raise NotImplementedError

    def _forward(self, network: Any, inputs: Tensor) -> Tensor:
        features: Tensor = network(inputs)
        return features

    def _unfrozen(self, network: nn.Module) -> nn.Module:
        return network.requires_grad_(True)


class PixelNetwork(nn.Module):
    """An extractor's network as a module to train.

    Attributes:
        network: The part that has weights.
    """

    def __init__(self, extractor: FrozenExtractor, network: nn.Module) -> None:
        super().__init__()
        self._extractor = extractor
        self.network = network

    def forward(self, tiles: Tensor) -> Tensor:
        """Features (n, dimensions) of reflectance tiles, float32 (n, band, y, x); NaN is no data.

        A tile that holds no data at all in some band has features of NaN: leave it out.
        """
        return self._extractor.apply(self.network, tiles)


def hash_content(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a JSON description and tensors (names, dtypes, shapes, values), hexadecimal."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def fill_nodata(tiles: Tensor) -> Tensor:
    """Fills gaps, NaN or infinite, with the mean of their tile's band: no structure of its own.

    Args:
        tiles: float32 (n, band, y, x).

    Returns:
        The same where there is no gap; NaN where a band has no data at all.
    """
    gapped = ~tiles.sum(dim=(1, 2, 3)).isfinite()
    if not gapped.any():
        return tiles
    found = tiles[gapped]
    found = torch.where(found.isfinite(), found, torch.nan)
    mean = found.nanmean(dim=(-2, -1), keepdim=True)
    filled = tiles.clone()
    filled[gapped] = torch.where(found.isnan(), mean, found)
    return filled


def band_statistics(
    bands: Iterable[str], given: Mapping[str, Sequence[float]] | None
) -> dict[str, list[float]]:
    """Mean and spread of pixels by band: those given, else typical ones.

    Raises:
        FeatureError: There is no band, nothing is known of one, or its spread is not above 0.
    """
    known = {**TYPICAL_PIXELS, **(given or {})}
    bands = list(bands)
    unknown = [band for band in bands if band not in known]
    if unknown or not bands:
        raise FeatureError(
            f"No typical values are known for the bands {unknown}: "
            'give the spec "statistics" with a mean and a spread for each of them.'
        )
    found = {band: [float(value) for value in known[band]] for band in bands}
    flat = [band for band, (_, spread) in found.items() if not spread > 0]
    if flat:
        raise FeatureError(f"The statistics of {', '.join(flat)} have no spread above 0.")
    return found


def stored_tensors(network: nn.Module) -> dict[str, Tensor]:
    """A network's weights by name, on the CPU."""
    state = network.state_dict()
    return {k: v.detach().cpu().contiguous() for k, v in state.items() if not is_counter(k)}


def is_counter(name: str) -> bool:
    """Whether a tensor only counts batches: checkpoints often lack those of batch normalisation."""
    return name.endswith("num_batches_tracked")
