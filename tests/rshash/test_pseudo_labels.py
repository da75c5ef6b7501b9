import numpy as np
import torch

from rshash.pseudo_labels import sharpened_target, soft_assignment

LATENT = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CENTRES = LATENT[:4] + 0.1


def test_soft_assignment_is_the_students_t_kernel() -> None:
    kernel = 1 / (1 + (LATENT[:, None] - CENTRES[None]).square().sum(2))
    expected = kernel / kernel.sum(1, keepdim=True)
    torch.testing.assert_close(soft_assignment(LATENT, CENTRES).exp(), expected)


def test_sharpened_target_is_its_formula() -> None:
    q = soft_assignment(LATENT, CENTRES).exp()
    weight = q**2 / q.sum(0)
    expected = weight / weight.sum(1, keepdim=True)
    torch.testing.assert_close(sharpened_target(q.log()), expected)
    torch.testing.assert_close(sharpened_target(q.log(), power=1), q)


def test_the_target_is_sharper_than_the_assignment() -> None:
    log_q = soft_assignment(LATENT, CENTRES)
    p = sharpened_target(log_q)
    assert (p * p.log()).sum() > (log_q.exp() * log_q).sum()


def test_far_latent_points_stay_finite() -> None:
    p = sharpened_target(soft_assignment(1e6 * LATENT.float(), CENTRES.float()))
    assert np.isfinite(p.numpy()).all()
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
