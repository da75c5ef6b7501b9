import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from rshash.neighbours import (
    LENGTH,
    ONE_SIDED_WEIGHT,
    Directions,
    extended_embedding,
    joined_directions,
    nearest,
    neighbour_embedding,
    reach,
)


def two_rings(n: int = 300) -> tuple[Directions, torch.Tensor]:
    """Points of two parallel circles on a sphere, near each other but apart, and which is whose."""
    random = np.random.default_rng(0)
    ring = np.arange(n) % 2
    angle = random.uniform(0, 2 * np.pi, n)
    height = np.where(ring, 0.25, -0.25) + 0.01 * random.normal(size=n)
    points = np.stack([np.cos(angle), np.sin(angle), height], axis=1)
    return joined_directions([torch.from_numpy(points).float()]), torch.tensor(ring)


def test_it_follows_chains_of_neighbours() -> None:
    torch.manual_seed(0)
    points, ring = two_rings()
    assert (points.values @ points.values.T)[ring == 0][:, ring == 0].min() < -0.8
    latent = neighbour_embedding(points, 1)[:, 0]
    assert (latent[ring == 0] * latent[ring == 1].median() < 0).float().mean() > 0.95
    assert (latent[ring == 1] * latent[ring == 1].median() > 0).float().mean() > 0.95


def test_it_is_the_diffusion_map_of_the_dense_graph() -> None:
    torch.manual_seed(0)
    centres = torch.randn(6, 8).repeat(20, 1)
    points = joined_directions([centres + 0.5 * torch.randn(120, 8)])
    k = 4  # A thirtieth of the tiles.
    products = points.values @ points.values.T
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


@given(st.integers(1, 5), st.integers(6, 40), st.booleans(), st.sampled_from([0, 0.4, 1]))
def test_nearest_agrees_with_sorting(k: int, n: int, own: bool, lacking: float) -> None:
    generator = torch.Generator().manual_seed(n)
    first, second = (torch.randn(n, 3, generator=generator) for _ in range(2))
    second[torch.rand(n, generator=generator) < lacking] = torch.nan
    points = joined_directions([first, second])
    values, rows = nearest(points, points, k, own=own)
    cosines = [
        torch.nn.functional.cosine_similarity(source[:, None], source[None], dim=2)
        for source in (first, second)
    ]
    products = torch.stack(cosines).nanmean(0)
    if own:
        products.fill_diagonal_(-torch.inf)
    torch.testing.assert_close(values, products.sort(1, descending=True).values[:, :k])
    torch.testing.assert_close(products.gather(1, rows), values)


def test_further_tiles_take_the_place_of_their_neighbours() -> None:
    torch.manual_seed(0)
    points, ring = two_rings()
    references, others = points.take(slice(240)), points.take(slice(240, None))
    latent = neighbour_embedding(references, 4)
    further = extended_embedding(others, references, reach(references), latent)
    torch.testing.assert_close(further.norm(dim=1), torch.full((60,), LENGTH))
    closest = ring[:240][torch.cdist(further, latent).argmin(1)]
    assert (closest == ring[240:]).float().mean() > 0.9


def test_further_tiles_step_to_references_as_the_graph_does() -> None:
    torch.manual_seed(1)
    points = joined_directions([torch.randn(70, 5)])
    references, others = points.take(slice(60)), points.take(slice(60, None))
    latent = neighbour_embedding(references, 4)
    products = others.values @ references.values.T
    among = references.values @ references.values.T
    among.fill_diagonal_(-torch.inf)
    steps = torch.zeros(10, 60)
    for tile in range(10):
        for one in products[tile].argsort(descending=True)[:3]:
            # The further tile would be among the three nearest of the reference tile.
            reciprocal = (among[one] > products[tile, one]).sum() < 3
            steps[tile, one] = 1 + 2 * ONE_SIDED_WEIGHT if reciprocal else ONE_SIDED_WEIGHT
    expected = LENGTH * torch.nn.functional.normalize(steps @ latent, dim=1)
    further = extended_embedding(others, references, reach(references), latent)
    assert 0 < (steps > 1).sum() < 30
    torch.testing.assert_close(further, expected)


def test_each_source_weighs_the_same_and_a_lacking_one_nothing() -> None:
    first, second = torch.randn(5, 4), 100 * torch.randn(5, 7)
    second[3] = torch.nan
    joined = joined_directions([first, second])
    torch.testing.assert_close(joined.values[:, :4].norm(dim=1), torch.full((5,), 0.5**0.5))
    expected = torch.tensor([1, 1, 1, 0, 1]) * 0.5**0.5
    torch.testing.assert_close(joined.values[:, 4:].norm(dim=1), expected)
    assert joined.present.tolist() == [[1, 1], [1, 1], [1, 1], [1, 0], [1, 1]]


def test_tiles_that_lack_a_source_stay_among_their_like() -> None:
    torch.manual_seed(0)
    kind = torch.arange(400) % 4
    first, second = (3 * torch.randn(4, 16)[kind] + torch.randn(400, 16) for _ in range(2))
    second[torch.rand(400) < 0.3] = torch.nan
    lacks = second[:, 0].isnan()
    directions = torch.nn.functional.normalize(
        neighbour_embedding(joined_directions([first, second]), 8), dim=1
    )
    cosines = (directions @ directions.T)[~lacks][:, lacks]
    same = kind[~lacks][:, None] == kind[lacks][None]
    assert cosines[same].mean() > cosines[~same].mean() + 1
