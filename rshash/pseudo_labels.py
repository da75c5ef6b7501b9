"""Pseudo multi-labels: how much a tile belongs to each cluster of the latent space.

They are the labels of MrHash (Sun et al., TGRS 2022, doi:10.1109/TGRS.2022.3231215). The assignment
and its target are those of Xie et al., "Unsupervised deep embedding for clustering analysis",
ICML 2016, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_student_kernel(latent: Tensor, centres: Tensor) -> Tensor:
    """Logarithm of Student's t kernel 1 / (1 + |z - mu_k|^2), of one degree of freedom.

    Args:
        latent: Points z, float (n, d).
        centres: Centres mu, float (K, d).

    Returns:
        float (n, K).
    """
    squares = torch.addmm(centres.square().sum(1), latent, centres.T, alpha=-2)
    squares = squares + latent.square().sum(1, keepdim=True)
    return -torch.log1p(squares.clamp_min(0))


def soft_assignment(latent: Tensor, centres: Tensor) -> Tensor:
    """Logarithm of the soft assignment of latent points to centres, by a Student's t kernel.

    Args:
        latent: float (n, d).
        centres: float (K, d).

    Returns:
        log q, float (n, K); the rows of q sum to one.
    """
    return torch.log_softmax(log_student_kernel(latent, centres), dim=1)


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
