import pytest
import torch

from rshash.kmeans import kmeans


def test_finds_separate_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = 20 * torch.randn(6, 4, generator=generator)
    points = (truth[:, None] + torch.randn(6, 50, 4, generator=generator)).reshape(-1, 4)
    centres = kmeans(points, 6, restarts=5, generator=generator)
    nearest = torch.cdist(truth, centres).min(1)
    assert nearest.values.max() < 1
    assert nearest.indices.unique().numel() == 6


def test_follows_the_generator() -> None:
    points = torch.randn(100, 3, generator=torch.Generator().manual_seed(1))
    runs = [kmeans(points, 8, generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("distinct", [1, 3])
def test_survives_fewer_distinct_points_than_clusters(distinct: int) -> None:
    points = torch.arange(10.0).remainder(distinct)[:, None]
    centres = kmeans(points, 5)
    assert centres.shape == (5, 1)
    assert torch.cdist(points, centres).min(1).values.max() < 1e-6
