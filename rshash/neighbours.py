"""Neighbour embedding: a latent space that brings tiles together which are neighbours.

Two tiles are joined where each is among the other's nearest in the features of all sources taken
together. A diffusion map of that graph follows chains of neighbours: far fewer tiles of unlike
places share a region of it than share one of the features themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rshash.errors import TrainingError

NEIGHBOURS = 20
TILES_PER_NEIGHBOUR = 30
"""A small training set gets fewer neighbours: so many tiles for each."""

ONE_SIDED_WEIGHT = 0.05
"""Of a pair where one tile alone is among the other's nearest: it keeps the graph in one piece."""

DIFFUSION_TIME = 4
LENGTH = 10.0
"""Of every latent vector: the scale of Student's t kernel in the pseudo-labels is one."""

_BLOCK = 2048
_ITERATIONS = 50


class Directions(NamedTuple):
    """Tiles as all their sources show them together.

    Attributes:
        values: Every source's features at the same weight, float (n, sum of d_s), zero where a
            tile lacks the source.
        present: Which sources a tile has, float (n, sources) of ones and zeros.
    """

    values: Tensor
    present: Tensor

    def take(self, rows: Tensor | slice) -> Directions:
        """Those of some of the tiles."""
        return Directions(self.values[rows], self.present[rows])


def joined_directions(sources: Sequence[Tensor]) -> Directions:
    """Joins the sources' features so that each source weighs the same.

    Args:
        sources: Scaled features, float (n, d_s); a row of NaN is a tile that lacks the source.
    """
    directions = [nn.functional.normalize(source.nan_to_num(), dim=1) for source in sources]
    present = torch.stack([~source[:, 0].isnan() for source in sources], dim=1)
    return Directions(torch.cat(directions, dim=1) / len(sources) ** 0.5, present.float())


def nearest(
    queries: Directions, points: Directions, k: int, *, own: bool = False
) -> tuple[Tensor, Tensor]:
    """The most similar points: by the mean cosine over the sources that both tiles have.

    Args:
        queries: q tiles.
        points: n tiles, n > k.
        k: How many for each query.
        own: Queries and points are the same tiles, of which none is its own neighbour.

    Returns:
        Similarities, float (q, k), the largest first, and row numbers, int64 (q, k).
    """
    values, rows = [], []
    complete = bool(queries.present.all() and points.present.all())
    for start in range(0, len(queries.values), _BLOCK):
        block = queries.take(slice(start, start + _BLOCK))
        similarities = block.values @ points.values.T
        if not complete:
            # Without this, tiles that lack a source would be neighbours of each other alone.
            similarities /= (block.present @ points.present.T) / points.present.shape[1]
        if own:
            similarities.diagonal(start).fill_(-torch.inf)
        best = similarities.topk(k)
        values.append(best.values)
        rows.append(best.indices)
    return torch.cat(values), torch.cat(rows)


def neighbour_embedding(directions: Directions, dimensions: int) -> Tensor:
    """Diffusion map of the graph of reciprocal neighbours.

    Coifman and Lafon, "Diffusion maps", Applied and Computational Harmonic Analysis 2006,
    section 2, with the rows brought to one length as in Ng et al., "On spectral clustering",
    NIPS 2001.

    Args:
        directions: n tiles, all with the first source.
        dimensions: Length of the latent vectors, fewer where there are fewer than four tiles for
            each.

    Returns:
        float (n, dimensions), every row of length `LENGTH`.

    Raises:
        TrainingError: There are fewer than eight tiles.
    """
    n_tiles = len(directions.values)
    if n_tiles < 8:
        raise TrainingError(f"A neighbour embedding needs at least 8 tiles, but found {n_tiles}.")
    kept = min(dimensions, n_tiles // 4)
    graph = _reciprocal_graph(directions)
    degrees = graph.sum(1).to_dense()
    values, vectors = _leading_eigenvectors(graph, degrees, kept)
    latent = vectors * values.clamp_min(0) ** DIFFUSION_TIME / degrees.sqrt()[:, None]
    latent = nn.functional.normalize(latent, dim=1) * LENGTH
    return nn.functional.pad(latent, (0, dimensions - kept))


def reach(references: Directions) -> Tensor:
    """How similar each of r tiles is to the last of its nearest among them, float (r,)."""
    k = _neighbours_for(len(references.values))
    return nearest(references, references, k, own=True)[0][:, -1]


def extended_embedding(
    directions: Directions, references: Directions, reached: Tensor, latent: Tensor
) -> Tensor:
    """Latent vectors of further tiles: a mean of their nearest reference tiles' ones.

    A reference tile that the further one is among the nearest of counts as in the graph: the step
    of the walk from the further tile is what Bengio et al., "Out-of-sample extensions for LLE,
    Isomap, MDS, Eigenmaps, and Spectral Clustering", NIPS 2003, section 3, extend eigenvectors by.

    Args:
        directions: m further tiles.
        references: r tiles that were embedded.
        reached: Their `reach`, float (r,).
        latent: Their latent vectors, float (r, dimensions).

    Returns:
        float (m, dimensions), every row of length `LENGTH`.
    """
    similarities, rows = nearest(directions, references, _neighbours_for(len(latent)))
    weights = _weights(similarities >= reached[rows])
    joined = (latent[rows] * weights[..., None]).sum(1)
    return nn.functional.normalize(joined, dim=1) * LENGTH


def _weights(reciprocal: Tensor) -> Tensor:
    return torch.where(reciprocal, 1 + 2 * ONE_SIDED_WEIGHT, ONE_SIDED_WEIGHT)


def _neighbours_for(n_tiles: int) -> int:
    return max(3, min(NEIGHBOURS, n_tiles // TILES_PER_NEIGHBOUR))


def _reciprocal_graph(directions: Directions) -> Tensor:
    n_tiles = len(directions.values)
    k = _neighbours_for(n_tiles)
    _, columns = nearest(directions, directions, k, own=True)
    rows = torch.arange(n_tiles, device=columns.device).repeat_interleave(k)
    pairs = torch.stack([rows, columns.flatten()])
    weights = torch.ones(pairs.shape[1], device=columns.device)
    both = _sparse(torch.cat([pairs, pairs.flip(0)], dim=1), torch.cat([weights, weights]), n_tiles)
    # A pair found from both sides has the weight two.
    return _sparse(both.indices(), _weights(both.values() > 1), n_tiles)


def _leading_eigenvectors(graph: Tensor, degrees: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of the symmetric random walk, falling, and their vectors.

    Without the one that every graph has, where the walk comes to rest: it tells tiles apart by
    their degree alone.
    """
    rows, columns = graph.indices()
    weights = graph.values() / (degrees[rows] * degrees[columns]).sqrt()
    tiles = torch.arange(len(degrees), device=degrees.device)
    # Half the walk stays where it is: no eigenvalue is negative, so singular values order them.
    lazy = _sparse(
        torch.cat([graph.indices(), torch.stack([tiles, tiles])], dim=1),
        torch.cat([weights / 2, torch.full_like(degrees, 0.5)]),
        len(degrees),
    )
    size = min(len(degrees), count + 1 + 16)
    vectors, values, _ = torch.svd_lowrank(lazy, size, niter=_ITERATIONS)
    # A graph in several pieces has several vectors of rest: what is one's own is not the first.
    rest = vectors.T @ nn.functional.normalize(degrees.sqrt(), dim=0)
    apart = torch.eye(size, device=rest.device) - torch.outer(rest, rest) / rest.square().sum()
    values, turned = torch.linalg.eigh(apart @ torch.diag(2 * values - 1) @ apart)
    return values.flip(0)[:count], (vectors @ turned).flip(1)[:, :count]


def _sparse(indices: Tensor, values: Tensor, size: int) -> Tensor:
    return torch.sparse_coo_tensor(indices, values, (size, size), check_invariants=False).coalesce()
