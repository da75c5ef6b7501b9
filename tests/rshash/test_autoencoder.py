import torch

from rshash.autoencoder import MultiSourceAutoencoder, train_autoencoder
from rshash.progress import Progress


def make_sources(n: int = 256) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, 3, generator=generator)
    return [hidden @ torch.randn(3, d, generator=generator) for d in (12, 7)]


def test_it_learns_to_predict_both_sources() -> None:
    torch.manual_seed(0)
    steps: list[Progress] = []
    autoencoder = MultiSourceAutoencoder([12, 7], 4)
    train_autoencoder(autoencoder, make_sources(), epochs=20, batch_size=32, report=steps.append)
    assert [step.epoch for step in steps] == list(range(1, 21))
    assert steps[-1].loss < 0.3 * steps[0].loss


def test_a_missing_secondary_source_takes_no_part() -> None:
    torch.manual_seed(0)
    primary, secondary = make_sources(8)
    autoencoder = MultiSourceAutoencoder([12, 7], 4)
    gappy = secondary.clone()
    gappy[3:] = torch.nan
    latent = autoencoder(primary)
    loss = autoencoder.reconstruction_loss(latent, [primary, gappy], 0.0)
    kept = autoencoder.reconstruction_loss(latent[:3], [primary[:3], secondary[:3]], 0.0)
    torch.testing.assert_close(loss, kept)
    none = torch.full_like(secondary, torch.nan)
    assert autoencoder.reconstruction_loss(latent, [primary, none], 0.0) == 0
