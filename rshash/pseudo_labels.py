"""Pseudo multi-labels: how much a tile belongs to each cluster of the latent space.

They are the labels of MrHash (Sun et al., TGRS 2022, doi:10.1109/TGRS.2022.3231215). The assignment
and its target are those of Xie et al., "Unsupervised deep embedding for clustering analysis",
ICML 2016, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_assignment(latent: Tensor, centres: Tensor, alpha: float = 1.0) -> Tensor:
    """Logarithm of the soft assignment of latent points to centres, by a Student's t kernel.

    q_k is proportional to (1 + |z - mu_k|^2 / alpha)^(-(alpha + 1) / 2).

    Args:
        latent: float (n, d).
        centres: float (K, d).
        alpha: Degrees of freedom of the kernel.

    Returns:
        log q, float (n, K); the rows of q sum to one.
    """
    squared = (
        latent.square().sum(1, keepdim=True) - 2 * latent @ centres.T + centres.square().sum(1)
    ).clamp_min(0)
    return torch.log_softmax(-(alpha + 1) / 2 * torch.log1p(squared / alpha), dim=1)


def sharpened_target(log_assignment: Tensor, power: float = 2.0) -> Tensor:
    """The target that sharpens an assignment and keeps clusters of different sizes apart.

    p_k is proportional to q_k^power / (sum_i q_ik)^(power - 1), the sum going over the whole
    training set.

    Args:
        log_assignment: log q of all training tiles, float (n, K).
        power: 2 as published; 1 leaves the assignment as it is.

    Returns:
        p, float (n, K); its rows sum to one.
    """
    log_sizes = log_assignment.logsumexp(0)
    return torch.softmax(power * log_assignment - (power - 1) * log_sizes, dim=1)
