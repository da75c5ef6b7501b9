import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rshash.neighbours import (
    LENGTH,
    extended_embedding,
    joined_directions,
    nearest,
    neighbour_embedding,
)


def two_rings(n: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of two parallel circles on a sphere, near each other but apart, and which is whose."""
    random = np.random.default_rng(0)
    ring = np.arange(n) % 2
    angle = random.uniform(0, 2 * np.pi, n)
    height = np.where(ring, 0.25, -0.25) + 0.01 * random.normal(size=n)
    points = np.stack([np.cos(angle), np.sin(angle), height], axis=1)
    return torch.nn.functional.normalize(torch.from_numpy(points).float(), dim=1), torch.tensor(
        ring
    )


def test_it_follows_chains_of_neighbours() -> None:
    torch.manual_seed(0)
    points, ring = two_rings()
    assert (points @ points.T)[ring == 0][:, ring == 0].min() < -0.8
    latent = neighbour_embedding(points, 1)[:, 0]
    assert (latent[ring == 0] * latent[ring == 1].median() < 0).float().mean() > 0.95
    assert (latent[ring == 1] * latent[ring == 1].median() > 0).float().mean() > 0.95


def test_it_is_the_diffusion_map_of_the_dense_graph() -> None:
    torch.manual_seed(0)
    centres = torch.randn(6, 8).repeat(20, 1)
    points = torch.nn.functional.normalize(centres + 0.5 * torch.randn(120, 8), dim=1)
    k = 4  # A thirtieth of the tiles.
    products = points @ points.T
    products.fill_diagonal_(-torch.inf)
    chosen = torch.zeros(120, 120).scatter_(1, products.topk(k).indices, 1)
    graph = torch.where(chosen * chosen.T > 0, 1.1, 0.05 * (chosen + chosen.T)).double()
    roots = graph.sum(1).sqrt()
    values, vectors = torch.linalg.eigh(graph / roots[:, None] / roots)
    values, vectors = values.flip(0)[1:6], vectors.flip(1)[:, 1:6]
    expected = vectors * values.clamp_min(0) ** 4 / roots[:, None]
    expected = LENGTH * torch.nn.functional.normalize(expected, dim=1)
    latent = neighbour_embedding(points, 5).double()
    torch.testing.assert_close(latent @ latent.T, expected @ expected.T, atol=0.05, rtol=0)


@given(st.integers(1, 5), st.integers(6, 40), st.booleans())
def test_nearest_agrees_with_sorting(k: int, n: int, own: bool) -> None:
    points = torch.randn(n, 3, generator=torch.Generator().manual_seed(n))
    values, rows = nearest(points, points, k, own=own)
    products = points @ points.T
    if own:
        products.fill_diagonal_(-torch.inf)
    torch.testing.assert_close(values, products.sort(1, descending=True).values[:, :k])
    torch.testing.assert_close(products.gather(1, rows), values)


def test_further_tiles_take_the_place_of_their_neighbours() -> None:
    torch.manual_seed(0)
    points, ring = two_rings()
    latent = neighbour_embedding(points[:240], 4)
    further = extended_embedding(points[240:], points[:240], latent)
    torch.testing.assert_close(further.norm(dim=1), torch.full((60,), LENGTH))
    closest = ring[:240][torch.cdist(further, latent).argmin(1)]
    assert (closest == ring[240:]).float().mean() > 0.9


def test_each_source_weighs_the_same_and_a_lacking_one_nothing() -> None:
    first, second = torch.randn(5, 4), 100 * torch.randn(5, 7)
    second[3] = torch.nan
    joined = joined_directions([first, second])
    torch.testing.assert_close(joined[:, :4].norm(dim=1), torch.full((5,), 0.5**0.5))
    torch.testing.assert_close(joined[:, 4:].norm(dim=1), torch.tensor([1, 1, 1, 0, 1]) * 0.5**0.5)
