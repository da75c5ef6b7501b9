"""Features: frozen networks that turn tiles into vectors.

An extractor is described by a spec, a small JSON object. `make_extractor` builds one from its spec;
`restore_extractor` rebuilds it from the spec and the tensors that a model keeps, and needs no other
file.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rshash.errors import FeatureError

Features = NDArray[np.float32]
"""Feature vectors, float32 (n, dimensions)."""

TYPICAL_REFLECTANCE = {
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
}
"""Mean and spread of surface reflectance over land by band, round figures: they bring the bands to
one scale, so that random filters see structure in all of them."""


class Extractor(Protocol):
    """Turns the tiles of one sensor into feature vectors."""

    @property
    def id(self) -> str:
        """Name of the extractor with a hash of its content: equal IDs make equal features."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands it reads, in order."""

    @property
    def dimensions(self) -> int:
        """Length of its vectors."""

    @property
    def components(self) -> int | None:
        """Principal components to whiten its vectors to before learning; None: do not whiten."""

    def spec(self) -> dict[str, Any]:
        """Its description as JSON, free of paths."""

    def tensors(self) -> dict[str, Tensor]:
        """Its weights by name."""

    def __call__(self, tiles: NDArray[np.float32]) -> Features:
        """Features of tiles.

        Args:
            tiles: Reflectance, float32 (n, band, y, x); NaN where there is no data.

        Returns:
            float32 (n, dimensions); NaN for a tile that holds no data at all in some band.

        Raises:
            FeatureError: The tiles have another shape.
        """


def make_extractor(spec: Mapping[str, Any]) -> Extractor:
    """Builds an extractor from its spec.

    Args:
        spec: One of
            ``{"kind": "mosaiks", "bands": [...], "features": 1024, "kernel_size": 3, "bias": -1.0,
            "seed": 1, "statistics": {"red": [mean, spread], ...}}`` (statistics in reflectance;
            known bands have defaults), or
            ``{"kind": "timm", "bands": ["red", "green", "blue"], "architecture": "...",
            "checkpoint": "file.safetensors", "options": {...}, "reflectance_range": [0, 0.3],
            "input_size": 224}``.

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
    kinds: dict[str, Callable[..., Extractor]] = {"mosaiks": Mosaiks, "timm": TimmExtractor}
    options = dict(spec)
    kind = options.pop("kind", None)
    if kind not in kinds:
        raise FeatureError(
            f'No extractor is of the kind {kind!r}: the spec\'s "kind" is one of {sorted(kinds)}.'
        )
    try:
        return kinds[kind](**options, tensors=tensors)
    except TypeError as error:
        raise FeatureError(f"The spec of a {kind} extractor is not usable: {error}.") from error


class _FrozenExtractor:
    """What every extractor of this module shares: a frozen module applied in batches."""

    batch_size = 32
    components: int | None = None

    def __init__(self, spec: dict[str, Any], module: nn.Module, dimensions: int) -> None:
        self._spec = spec
        self._module = module.eval().requires_grad_(False)
        self.bands = tuple(spec["bands"])
        self.dimensions = dimensions
        digest = hash_content(spec, self.tensors())
        self.id = f"{spec['kind']}-{digest[:10]}"

    def spec(self) -> dict[str, Any]:
        return dict(self._spec)

    def tensors(self) -> dict[str, Tensor]:
        state = self._module.state_dict()
        return {k: v.contiguous() for k, v in state.items() if not _is_counter(k)}

    def __call__(self, tiles: NDArray[np.float32]) -> Features:
        if tiles.ndim != 4 or tiles.shape[1] != len(self.bands):
            raise FeatureError(
                f"Extractor {self.id} reads tiles of shape (n, {len(self.bands)}, y, x) "
                f"with the bands {', '.join(self.bands)}, but found shape {tiles.shape}."
            )
        features = np.empty((len(tiles), self.dimensions), np.float32)
        device = next(iter(self._module.state_dict().values())).device
        with torch.inference_mode():
            for start in range(0, len(tiles), self.batch_size):
                batch = torch.as_tensor(tiles[start : start + self.batch_size], device=device)
                vectors = self._forward(_fill_nodata(batch.float()))
                features[start : start + self.batch_size] = vectors.cpu().numpy()
        return features

    def _forward(self, tiles: Tensor) -> Tensor:
        raise NotImplementedError


class Mosaiks(_FrozenExtractor):
    """Random convolutional features: random filters, rectified, averaged over the tile.

    Rolf et al., "A generalizable and accessible approach to machine learning with global satellite
    imagery", Nature Communications 2021, with Gaussian filters.
    """

    batch_size = 4
    components = 32

    def __init__(
        self,
        bands: Sequence[str],
        features: int = 1024,
        kernel_size: int = 3,
        bias: float = -1.0,
        seed: int = 1,
        statistics: Mapping[str, Sequence[float]] | None = None,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Draws the filters, or takes them from `tensors`; see `make_extractor`."""
        from torchgeo.models import RCF

        if seed == 0:
            raise FeatureError("Seed 0 leaves the random filters unseeded: use another seed.")
        if features < 2 or features % 2:
            raise FeatureError(f"The number of random features must be even, but is {features}.")
        known = {**TYPICAL_REFLECTANCE, **(statistics or {})}
        unknown = [band for band in bands if band not in known]
        if unknown or not bands:
            raise FeatureError(
                f"No typical reflectance is known for the bands {unknown}: "
                'give the spec "statistics" with a mean and a spread for each of them.'
            )
        chosen = {band: [float(value) for value in known[band]] for band in bands}
        spec = {
            "kind": "mosaiks",
            "bands": list(bands),
            "features": features,
            "kernel_size": kernel_size,
            "bias": bias,
            "seed": seed,
            "statistics": chosen,
        }
        self._filters = RCF(len(bands), features, kernel_size, bias=bias, seed=seed)
        if tensors is not None:
            _load(self._filters, tensors, "the model's tensors")
        means, spreads = np.array(list(chosen.values()), np.float32).T
        self._means = torch.from_numpy(means)[:, None, None]
        self._spreads = torch.from_numpy(spreads)[:, None, None]
        super().__init__(spec, self._filters, features)

    def _forward(self, tiles: Tensor) -> Tensor:
        scaled = (tiles - self._means.to(tiles.device)) / self._spreads.to(tiles.device)
        positive, mean = [], []
        # A few filters at a time stay in the cache: three times as fast as all of them at once.
        for weights, biases in zip(
            self._filters.weights.split(32), self._filters.biases.split(32), strict=True
        ):
            responses = nn.functional.conv2d(scaled, weights, biases)
            mean.append(responses.mean(dim=(-2, -1)))
            positive.append(responses.clamp_min_(0).mean(dim=(-2, -1)))
        rectified = torch.cat(positive, dim=1)
        return torch.cat([rectified, rectified - torch.cat(mean, dim=1)], dim=1)


class TimmExtractor(_FrozenExtractor):
    """The pooled output of a timm network with weights from a local checkpoint."""

    def __init__(
        self,
        architecture: str,
        bands: Sequence[str] = ("red", "green", "blue"),
        checkpoint: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        reflectance_range: Sequence[float] = (0.0, 0.3),
        input_size: int = 224,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Builds the network with weights from `checkpoint` or `tensors`; see `make_extractor`."""
        import timm

        low, high = reflectance_range
        spec = {
            "kind": "timm",
            "bands": list(bands),
            "architecture": architecture,
            "options": dict(options or {}),
            "reflectance_range": [float(low), float(high)],
            "input_size": input_size,
        }
        if not timm.is_model(architecture):
            close = ", ".join(difflib.get_close_matches(str(architecture), timm.list_models()))
            raise FeatureError(
                f"timm has no architecture {architecture!r}: "
                f"{f'did you mean {close}?' if close else 'timm.list_models() names them all.'}"
            )
        module = timm.create_model(
            architecture, num_classes=0, in_chans=len(bands), **(options or {})
        )
        if tensors is not None:
            _load(module, tensors, "the model's tensors")
        else:
            _load(module, _read_checkpoint(checkpoint), str(checkpoint))
        self._low, self._high = float(low), float(high)
        self._input_size = input_size
        super().__init__(spec, module, self._output_length(module, spec))

    @staticmethod
    def _output_length(module: nn.Module, spec: Mapping[str, Any]) -> int:
        # Tried out: some networks' heads lengthen the vectors, so that `num_features` is not it.
        side = spec["input_size"]
        try:
            with torch.inference_mode():
                output = module.eval()(torch.zeros(1, len(spec["bands"]), side, side))
        except (AssertionError, RuntimeError) as error:
            raise FeatureError(
                f"{spec['architecture']} cannot read tiles of {side} x {side} pixels: {error}."
            ) from error
        if output.ndim != 2:
            raise FeatureError(
                f"{spec['architecture']} gives features of shape (n, "
                f"{', '.join(map(str, output.shape[1:]))}), but vectors (n, d) are expected: "
                "check the options, such as global_pool."
            )
        return int(output.shape[1])

    def _forward(self, tiles: Tensor) -> Tensor:
        scaled = ((tiles - self._low) / (self._high - self._low)).clamp(0, 1) * 2 - 1
        size = (self._input_size, self._input_size)
        # NaN passes through clamp and the network, so that an empty tile has no features.
        resized = nn.functional.interpolate(scaled, size, mode="bilinear", antialias=True)
        return self._module(resized)


def hash_content(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a JSON description and tensors (names, dtypes, shapes, values), hexadecimal."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(tensors):
        values = tensors[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _fill_nodata(tiles: Tensor) -> Tensor:
    """Fills NaN with the mean of its tile's band, which adds no structure of its own."""
    return torch.where(tiles.isnan(), tiles.nanmean(dim=(-2, -1), keepdim=True), tiles)


def _is_counter(name: str) -> bool:
    """Batch normalisation counts its batches in training only; checkpoints often lack it."""
    return name.endswith("num_batches_tracked")


def _load(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    expected = {k: v for k, v in module.state_dict().items() if not _is_counter(k)}
    given = {k: v for k, v in tensors.items() if not _is_counter(k)}
    problems = [
        *(f"missing {name}" for name in sorted(expected.keys() - given.keys())),
        *(f"unexpected {name}" for name in sorted(given.keys() - expected.keys())),
        *(
            f"{name} of shape {tuple(given[name].shape)} in place of {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & given.keys())
            if given[name].shape != expected[name].shape
        ),
    ]
    if problems:
        raise FeatureError(
            f"The weights in {origin} do not fit {type(module).__name__}: "
            f"{'; '.join(problems[:8])}{' …' if len(problems) > 8 else ''}. "
            "Check the architecture, its options and the number of bands."
        )
    module.load_state_dict(dict(given), strict=False)


def _read_checkpoint(path: str | Path | None) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if path is None or not Path(path).is_file():
        raise FeatureError(
            f'No checkpoint at {path}: the spec\'s "checkpoint" is the path of a safetensors file.'
        )
    try:
        return load_file(path)
    except Exception as error:
        raise FeatureError(f"{path} is not a readable safetensors file: {error}.") from error
