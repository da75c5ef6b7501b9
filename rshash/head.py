"""The hash head: the small trained network between frozen features and a code."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Dropout that draws eight values from one random number.

    On a CPU drawing them one by one takes as long as the layers beside it. The share is rounded to
    1/256, at most 255/256.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Values of which a random share is zero while training; the others are scaled up."""
        dropped = min(round(self.p * 256), 255)
        if not self.training or dropped == 0:
            return values
        count = values.numel()
        numbers = torch.empty(-(-count // 8), dtype=torch.int64, device=values.device)
        numbers.random_(-(2**63), None)
        # In place of a comparison: torch is slow to turn booleans into numbers.
        kept = numbers.view(torch.uint8)[:count].clamp_(dropped - 1, dropped) - (dropped - 1)
        return values * kept.view(values.shape).to(values.dtype).mul_(256 / (256 - dropped))


class HashHead(nn.Module):
    """Maps scaled features to network outputs in [-1, 1], whose signs are the code.

    One hidden layer, rectified and with dropout, or none; then the hash layer with tanh.
    """

    def __init__(
        self, dimensions: int, bits: int, hidden: int = 1024, dropout: float = 0.5
    ) -> None:
        """Makes the layers for features of length `dimensions` and codes of `bits` bits.

        A `hidden` width of 0 leaves the hidden layer out.
        """
        super().__init__()
        self.sizes = {"dimensions": dimensions, "bits": bits, "hidden": hidden}
        hidden_layer: list[nn.Module] = []
        if hidden:
            hidden_layer = [nn.Linear(dimensions, hidden), nn.ReLU(), Dropout(dropout)]
        self.layers = nn.Sequential(*hidden_layer, nn.Linear(hidden or dimensions, bits), nn.Tanh())

    def forward(self, features: Tensor) -> Tensor:
        """Network outputs u, float (n, bits) in [-1, 1], of scaled features (n, dimensions)."""
        return self.layers(features)

    def spec(self) -> dict[str, Any]:
        """The arguments that build this head again, as JSON."""
        return dict(self.sizes)
