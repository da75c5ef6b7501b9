"""Random convolutional features, which need neither a checkpoint nor a network connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rshash.errors import FeatureError
from rshash.extractors.weight_files import load_weights
from rshash.features import FrozenExtractor, band_statistics

COMPONENTS = 32
"""Principal components that hold what random filters tell apart, see docs/benchmarks.md."""


class Mosaiks(FrozenExtractor):
    """Random convolutional features: random filters, rectified, averaged over the tile.

    Rolf et al., "A generalizable and accessible approach to machine learning with global satellite
    imagery", Nature Communications 2021, with Gaussian filters.
    """

    batch_size = 4
    gpu_batch_size = 64
    # Whitening raises the features' small differences, which bfloat16 would round away.
    mixed_precision = False

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
        known = band_statistics(bands, statistics)
        spec = {
            "kind": "mosaiks",
            "bands": list(bands),
            "features": features,
            "kernel_size": kernel_size,
            "bias": bias,
            "seed": seed,
            "statistics": known,
        }
        filters = RCF(len(bands), features, kernel_size, bias=bias, seed=seed)
        if tensors is not None:
            load_weights(filters, tensors, "the model's tensors")
        values = torch.tensor([known[band] for band in bands])
        self.components = min(COMPONENTS, features)
        self._means, self._spreads = values.T[:, :, None, None]
        super().__init__(spec, filters, features)

    def _prepare(self, tiles: Tensor) -> Tensor:
        size = self._spec["kernel_size"]
        if min(tiles.shape[-2:]) < size:
            raise FeatureError(
                f"Filters of {size} x {size} pixels need tiles that are no smaller, but found "
                f"tiles of {tiles.shape[-2]} x {tiles.shape[-1]}."
            )
        return (tiles - self._means.to(tiles.device)).div_(self._spreads.to(tiles.device))

    def _forward(self, network: Any, inputs: Tensor) -> Tensor:
        positive, mean = [], []
        # A few filters at a time stay in the cache: three times as fast as all of them at once.
        for weights, biases in zip(
            network.weights.split(32), network.biases.split(32), strict=True
        ):
            responses = nn.functional.conv2d(inputs, weights, biases)
            mean.append(responses.mean(dim=(-2, -1)))
            positive.append(responses.relu_().mean(dim=(-2, -1)))
        rectified = torch.cat(positive, dim=1)
        return torch.cat([rectified, rectified - torch.cat(mean, dim=1)], dim=1)

    def _unfrozen(self, network: nn.Module) -> nn.Module:
        for name, filters in list(network.named_buffers()):
            delattr(network, name)
            network.register_parameter(name, nn.Parameter(filters))
        return network
