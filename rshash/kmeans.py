"""k-means clustering with k-means++ seeding."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 1 << 15


def kmeans(
    points: Tensor,
    clusters: int,
    *,
    restarts: int = 20,
    iterations: int = 100,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Finds cluster centres; the best of several restarts by the sum of squared distances.

    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.

    Args:
        points: float (n, d), n >= clusters.
        clusters: Number of centres.
        restarts: Runs from different seeds.
        iterations: Most steps of one run.
        generator: Source of randomness, on the CPU.

    Returns:
        Centres, float (clusters, d).
    """
    best, lowest = points[:clusters], float("inf")
    for _ in range(restarts):
        centres = _seed(points, clusters, generator)
        cost = float("inf")
        for _ in range(iterations):
            distances, labels = _nearest(points, centres)
            previous, cost = cost, float(distances.sum())
            if cost < lowest:
                best, lowest = centres, cost
            if previous - cost <= 1e-5 * cost:
                break
            centres = _means(points, distances, labels, clusters)
    return best.clone()


def _seed(points: Tensor, clusters: int, generator: torch.Generator | None) -> Tensor:
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    distances = (points - points[chosen[0]]).square().sum(1)
    for _ in range(clusters - 1):
        cumulative = distances.cpu().double().cumsum(0)
        draw = torch.rand((), generator=generator, dtype=torch.float64) * cumulative[-1]
        index = min(int(torch.searchsorted(cumulative, draw, right=True)), len(points) - 1)
        chosen.append(index)
        distances = torch.minimum(distances, (points - points[index]).square().sum(1))
    return points[chosen]


def _nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance (n,) to the nearest centre, and which one that is (n,)."""
    squares = centres.square().sum(1)
    found = [(squares - 2 * block @ centres.T).min(1) for block in torch.split(points, _BLOCK)]
    distances = torch.cat([part.values for part in found]) + points.square().sum(1)
    return distances.clamp_min_(0), torch.cat([part.indices for part in found])


def _means(points: Tensor, distances: Tensor, labels: Tensor, clusters: int) -> Tensor:
    sums = points.new_zeros(clusters, points.shape[1]).index_add_(0, labels, points)
    counts = torch.bincount(labels, minlength=clusters)
    centres = sums / counts.clamp_min(1)[:, None]
    empty = counts == 0
    if empty.any():
        # A centre that lost all its points starts again at one of the worst served.
        centres[empty] = points[distances.topk(int(empty.sum())).indices]
    return centres
