import torch

from rshash.autoencoder import MultiSourceAutoencoder, train_autoencoder
from rshash.streaming import TileStream
from rshash.training import TrainingRun


def make_sources(n: int = 256) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, 3, generator=generator)
    return [hidden @ torch.randn(3, d, generator=generator) for d in (12, 7)]


def test_it_learns_to_predict_both_sources() -> None:
    torch.manual_seed(0)
    autoencoder = MultiSourceAutoencoder([12, 7], 4)
    arrays = [source.numpy() for source in make_sources()]
    stream = TileStream(arrays, 32, seed=0, device=torch.device("cpu"))
    run = TrainingRun(0, device=torch.device("cpu"))
    train_autoencoder(autoencoder, stream, epochs=20, run=run)
    losses = run.losses["autoencoder"]
    assert len(losses) == 20
    assert losses[-1] < 0.3 * losses[0]


def test_a_missing_secondary_source_takes_no_part() -> None:
    torch.manual_seed(0)
    primary, secondary = make_sources(8)
    autoencoder = MultiSourceAutoencoder([12, 7], 4)
    latent = autoencoder(primary)
    primary_error = (autoencoder.decoders[0](latent) - primary).square().mean()
    secondary_errors = (autoencoder.decoders[1](latent) - secondary).square()
    for present in (8, 3, 0):
        secondary[present:] = torch.nan
        loss = autoencoder.reconstruction_loss(latent, [primary, secondary], primary_weight=0.1)
        expected = 0.1 * primary_error
        if present:
            expected = expected + secondary_errors[:present].mean()
        torch.testing.assert_close(loss, expected)


def test_the_primary_source_alone_counts_in_full() -> None:
    (primary, _), autoencoder = make_sources(8), MultiSourceAutoencoder([12], 4)
    latent = autoencoder(primary)
    expected = (autoencoder.decoders[0](latent) - primary).square().mean()
    torch.testing.assert_close(autoencoder.reconstruction_loss(latent, [primary]), expected)
