"""Networks of the timm library with weights from a local file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rshash.errors import FeatureError
from rshash.extractors.weight_files import load_weights, read_weights
from rshash.features import FrozenExtractor

_OTHER_WEIGHTS = ("pretrained", "checkpoint", "cache_dir")
"""Beginnings of the options by which timm itself would download or open weights."""


class TimmExtractor(FrozenExtractor):
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
        refused = [name for name in options or {} if name.startswith(_OTHER_WEIGHTS)]
        if refused:
            raise FeatureError(
                f"The option {', '.join(refused)} of {architecture} is not allowed: weights come "
                "from the checkpoint alone."
            )
        if not timm.is_model(architecture):
            close = ", ".join(difflib.get_close_matches(str(architecture), timm.list_models()))
            raise FeatureError(
                f"timm has no architecture {architecture!r}: "
                f"{f'did you mean {close}?' if close else 'timm.list_models() names them all.'}"
            )
        network = timm.create_model(
            architecture, num_classes=0, in_chans=len(bands), **(options or {})
        )
        if tensors is not None:
            load_weights(network, tensors, "the model's tensors")
        else:
            load_weights(network, read_weights(checkpoint), str(checkpoint))
        self._low, self._high = float(low), float(high)
        self._input_size = input_size
        super().__init__(spec, network, self._output_length(network, spec))

    @staticmethod
    def _output_length(network: nn.Module, spec: Mapping[str, Any]) -> int:
        # Tried out: some networks' heads lengthen the vectors, so that `num_features` is not it.
        side = spec["input_size"]
        try:
            with torch.inference_mode():
                output = network.eval()(torch.zeros(1, len(spec["bands"]), side, side))
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

    def _prepare(self, tiles: Tensor) -> Tensor:
        scaled = (tiles - self._low).div_(self._high - self._low).clamp_(0, 1).mul_(2).sub_(1)
        size = (self._input_size, self._input_size)
        # NaN passes through clamp and the network, so that an empty tile has no features.
        return nn.functional.interpolate(scaled, size, mode="bilinear", antialias=True)
