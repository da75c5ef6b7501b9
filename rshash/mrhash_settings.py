"""Settings of MrHash."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from rshash.codes import check_bits
from rshash.errors import TrainingError
from rshash.settings import (
    above,
    at_least,
    checked,
    one_of,
    one_or_each,
    optional,
    random_seed,
    share,
    whole,
)

TILES_PER_CLUSTER = 6
MOST_CLUSTERS = 128
SMALLEST_TRAINING_SET = 24
LARGEST_BATCH = 448
BATCHES_PER_EPOCH = 3
SMALLEST_BATCH = 32

_ALLOWED = {
    "bits": whole(8),
    "clusters": optional(whole(2)),
    "latent_space": one_of("neighbours", "autoencoder"),
    "latent": whole(1),
    "sharpening": above(0),
    "autoencoder_epochs": whole(1),
    "hashing_epochs": whole(1),
    "batch_size": optional(whole(2)),
    "learning_rate": above(0),
    "schedule": one_of("cosine", "steps"),
    "backbone_rate": at_least(0),
    "reconstruction_weight": at_least(0),
    "similarity_weight": at_least(0),
    "quantisation_weight": at_least(0),
    "hidden": whole(0),
    "dropout": share(),
    "patience": optional(whole(1)),
    "seed": random_seed(),
    "components": one_or_each(optional(whole(1))),
}


@dataclass(frozen=True)
class MrHashSettings:
    """Settings of MrHash.

    The defaults are what won without labels, see docs/learning.md; `paper` gives the published
    ones.

    Attributes:
        bits: Length of the codes.
        clusters: Clusters of the latent space, which are the pseudo-labels' classes (K); without it
            one for every six tiles, at most 128.
        latent_space: Where tiles are clustered: "neighbours" is the diffusion map of the graph of
            reciprocal neighbours in all sources, "autoencoder" the published autoencoder's.
        latent: Length of the latent vectors.
        sharpening: Power of the assignment to clusters in the pseudo-labels; 1 leaves it as it is.
        autoencoder_epochs: Passes over the tiles in the autoencoder stage.
        hashing_epochs: Passes over the tiles in the hashing stage.
        batch_size: Tiles in a step of the hashing stage; without it a sixteenth of the tiles, but
            at least 32 and at most 448.
        learning_rate: Adam's first rate in the hashing stage.
        schedule: How the rate falls: "cosine" to nothing in the last epoch, "steps" by 0.7 every
            ten epochs, as published.
        backbone_rate: Rate of the backbone, where codes are learned from pixels, as a share of the
            learning rate; 0 keeps it frozen.
        reconstruction_weight: Weight of the autoencoder's reconstruction in the hashing stage.
        similarity_weight: Weight of keeping the latent vectors' cosines in the codes.
        quantisation_weight: Weight of bringing the head's outputs near to -1 and +1.
        hidden: Width of the head's hidden layer; 0 for none.
        dropout: Share of the hidden layer dropped while training.
        patience: Epochs of the hashing stage without a better judgement by held-out tiles, which
            takes no labels, before it stops; without it none are held out and it runs to the end.
        seed: Seed of everything random.
        components: Principal components that features are whitened to; where it is None they are
            only centred. One for each source, or one that holds for all. Extractors say what suits
            them.
    """

    bits: int = 64
    clusters: int | None = None
    latent_space: Literal["neighbours", "autoencoder"] = "neighbours"
    latent: int = 48
    sharpening: float = 1.0
    autoencoder_epochs: int = 60
    hashing_epochs: int = 20
    batch_size: int | None = None
    learning_rate: float = 1.4e-3
    schedule: Literal["cosine", "steps"] = "cosine"
    backbone_rate: float = 0.01
    reconstruction_weight: float = 1.0
    similarity_weight: float = 10.0
    quantisation_weight: float = 0.3
    hidden: int = 1024
    dropout: float = 0.5
    patience: int | None = None
    seed: int = 0
    components: int | tuple[int | None, ...] | None = None

    @classmethod
    def paper(
        cls,
        bits: int = 64,
        clusters: int = 64,
        seed: int = 0,
        components: int | tuple[int | None, ...] | None = None,
    ) -> MrHashSettings:
        """The published settings (Sun et al., TGRS 2022, section IV)."""
        return cls(
            bits=bits,
            clusters=clusters,
            latent_space="autoencoder",
            latent=64,
            sharpening=2.0,
            autoencoder_epochs=200,
            hashing_epochs=51,
            batch_size=128,
            learning_rate=1e-3,
            schedule="steps",
            # Published as 5 beside divergences that are averaged over the clusters too.
            reconstruction_weight=5.0 * clusters,
            similarity_weight=0.0,
            quantisation_weight=0.0,
            hidden=0,
            dropout=0.0,
            seed=seed,
            components=components,
        )

    def components_of(self, n_sources: int) -> tuple[int | None, ...]:
        """The principal components of each source.

        Raises:
            TrainingError: They are of another number of sources.
        """
        if not isinstance(self.components, tuple):
            return (self.components,) * n_sources
        if len(self.components) != n_sources:
            raise TrainingError(
                f"components are of {len(self.components)} sources, but there are {n_sources}: "
                "give one for each source, or one number or None that holds for all."
            )
        return self.components


def default_batch_size(n_tiles: int) -> int:
    """Few tiles make small batches, so that an epoch still has enough steps."""
    third = max(2, n_tiles // BATCHES_PER_EPOCH)
    return min(LARGEST_BATCH, third, max(SMALLEST_BATCH, n_tiles // 16))


def resolved_settings(n_tiles: int, settings: MrHashSettings) -> MrHashSettings:
    """The settings with the clusters and the batches that a training set of that size gets.

    Refuses a training set that is too small for the clusters, and settings that cannot work.

    Raises:
        CodeError: The number of bits is not allowed.
        TrainingError: A setting is out of range, or there are fewer than two tiles a cluster.
    """
    check_bits(settings.bits)
    settings = checked(settings, _ALLOWED)
    if settings.batch_size is None:
        settings = replace(settings, batch_size=default_batch_size(n_tiles))
    clusters = settings.clusters
    if clusters is None:
        if n_tiles < SMALLEST_TRAINING_SET:
            raise TrainingError(
                f"{n_tiles} tiles are too few to learn from: at least "
                f"{SMALLEST_TRAINING_SET} are needed."
            )
        return replace(settings, clusters=min(MOST_CLUSTERS, n_tiles // TILES_PER_CLUSTER))
    if n_tiles < 2 * clusters:
        fewer = f", or train with at most {n_tiles // 2} clusters" if n_tiles >= 4 else ""
        raise TrainingError(
            f"{n_tiles} tiles are too few for {clusters} clusters: "
            f"train on at least {2 * clusters} tiles{fewer}."
        )
    return settings
