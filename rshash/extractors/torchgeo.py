"""Weights that torchgeo knows by name, each with its own bands, order, scale and normalisation.

Tiles are in reflectance; a radar sensor's are in decibels, a thermal band's in kelvin. The whole
tile is resized to what the weights were trained to read: cropping, as torchgeo's transforms do for
benchmarks, would leave out its edge.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rshash.errors import FeatureError
from rshash.extractors.torchgeo_inputs import WAVELENGTHS, TileInput, tile_input
from rshash.extractors.weight_files import fetch_weights, load_weights, read_weights
from rshash.features import FrozenExtractor

_ENCODERS = ("resnet", "vit_", "dofa_", "croma_")
_FRESH = {"norm.weight", "norm.bias", "fc_norm.weight", "fc_norm.bias", "attn_bias"}
"""What published files may lack: norms that start as the identity, and computed constants."""

_UNUSED = ("fc.", "head.", "s1_", "s2_", "joint_encoder.")
"""What published files may hold beside the encoder: heads, and other modalities' encoders."""


class TorchGeoExtractor(FrozenExtractor):
    """The encoder of one of torchgeo's pre-trained networks.

    ResNets and vision transformers read the bands, scale and normalisation in their metadata.
    DOFA reads any bands whose wavelength is known, standardised. CROMA reads twelve bands of
    Sentinel-2 or both of Sentinel-1, scaled so that two spreads below the mean are 0 and two above
    it 1, as its authors do.
    """

    def __init__(
        self,
        weights: str,
        bands: Sequence[str] | None = None,
        checkpoint: str | Path | None = None,
        absent: Mapping[str, float] | None = None,
        statistics: Mapping[str, Sequence[float]] | None = None,
        tensors: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Builds the network with its published weights, or takes them from `tensors`.

        Args:
            weights: Name, such as "ResNet50_Weights.SENTINEL2_ALL_MOCO".
            bands: Canonical names of all bands there are to read from. Of these the weights' own
                are read, and all by DOFA. None stands for the weights' own.
            checkpoint: A local file of the weights; without it they are downloaded.
            absent: Reflectance by band that stands in for a band that the sensor lacks, such as
                {"cirrus": 0.0} for atmospherically corrected Sentinel-2 products.
            statistics: Mean and spread by band, in place of the metadata's; required where these
                tell none. Known bands have typical ones for CROMA and DOFA.
            tensors: As `tensors()` gave them.
        """
        member = _member(weights)
        model = _model_of(member)
        absent = {band: float(value) for band, value in (absent or {}).items()}
        everything = None if bands is None else [*bands, *(b for b in absent if b not in bands)]
        self._input = tile_input(member, model, everything, statistics)
        _check_bands(self._input, weights, bands, absent)
        read = [band for band in self._input.bands if band not in absent]
        network = _make_network(member, model, self._input)
        if tensors is None:
            _load_published(network, member, checkpoint)
        else:
            load_weights(network, tensors, "the model's tensors")
        spec = {
            "kind": "torchgeo",
            "weights": weights,
            "bands": read,
            "absent": absent,
            "statistics": self._input.statistics,
        }
        self._model = model
        self._places = torch.tensor([self._input.bands.index(band) for band in read])
        self._stand_ins = torch.tensor([absent.get(band, 0.0) for band in self._input.bands])
        scale = torch.tensor(list(self._input.scale()))
        self._means, self._spreads = scale.T[:, :, None, None]
        super().__init__(spec, network, _length(network))

    def _prepare(self, tiles: Tensor) -> Tensor:
        device = tiles.device
        if len(self._places) < len(self._stand_ins):
            n, _, height, width = tiles.shape
            whole = self._stand_ins.to(device)[:, None, None].repeat(n, 1, height, width)
            tiles = whole.index_copy_(1, self._places.to(device), tiles)
        inputs = (tiles - self._means.to(device)).div_(self._spreads.to(device))
        if self._input.clipped:
            inputs.clamp_(0, 1)
        if self._input.side is None:
            return inputs
        size = (self._input.side, self._input.side)
        return nn.functional.interpolate(inputs, size, mode="bilinear", antialias=True)

    def _forward(self, network: Any, inputs: Tensor) -> Tensor:
        if self._model.startswith("dofa_"):
            wavelengths = [WAVELENGTHS[band] for band in self._input.bands]
            features: Tensor = network.forward_features(inputs, wavelengths)
        elif self._model.startswith("croma_"):
            (modality,) = network.modalities
            features = network(**{f"x_{modality}": inputs})[f"{modality}_GAP"]
        else:
            features = network(inputs)
        return features


def own_bands(weights: str, offered: Sequence[str]) -> tuple[str, ...] | None:
    """Canonical names of the bands that weights read, in their order; None where it is any.

    Args:
        weights: Name, such as "ResNet50_Weights.SENTINEL2_ALL_MOCO".
        offered: Bands of the sensor: CROMA has weights for an optical one and for a radar.

    Raises:
        FeatureError: There are no such weights, or their metadata do not tell their bands.
    """
    member = _member(weights)
    model = _model_of(member)
    if model.startswith("dofa_"):
        return None
    return tuple(tile_input(member, model, offered, None).bands)


def _member(name: str) -> Any:
    """The member of torchgeo's enumerations of weights that has a name."""
    from torchgeo.models import get_weight

    try:
        return get_weight(name)
    except ValueError:
        known = [str(member) for members in _weights_by_model().values() for member in members]
        close = ", ".join(difflib.get_close_matches(str(name), known))
        raise FeatureError(
            f"torchgeo has no weights {name!r}: "
            f"{f'did you mean {close}?' if close else f'a name is like {known[0]}.'}"
        ) from None


def _model_of(member: Any) -> str:
    (model,) = [model for model, members in _weights_by_model().items() if member in members]
    if not model.startswith(_ENCODERS):
        raise FeatureError(
            f"{member} is for {model}, which does not encode a single tile as a vector here: "
            "use weights of a ResNet, a vision transformer, DOFA or CROMA."
        )
    return model


def _weights_by_model() -> dict[str, list[Any]]:
    from torchgeo.models import get_model_weights, list_models

    found = {}
    for model in list_models():
        try:
            found[model] = list(get_model_weights(model))
        except KeyError:  # a model without published weights
            continue
    return found


def _check_bands(
    expected: TileInput, weights: str, bands: Sequence[str] | None, absent: Mapping[str, float]
) -> None:
    lacking = [
        band
        for band in expected.bands
        if bands is not None and band not in bands and band not in absent
    ]
    if lacking:
        stand_ins = ", ".join(f'"{band}": 0.0' for band in lacking)
        raise FeatureError(
            f"{weights} reads the bands {', '.join(expected.bands)}, but the sensor has "
            f"{', '.join(bands or ())}: it lacks {', '.join(lacking)}. Use other weights, or give "
            f'the spec "absent" with a reflectance to put in place: {{{stand_ins}}}.'
        )
    unread = [band for band in absent if band not in expected.bands]
    if unread or len(absent) == len(expected.bands):
        raise FeatureError(
            f'The spec\'s "absent" holds {", ".join(absent)}, but {weights} reads '
            f"{', '.join(expected.bands)}: name some of these, not all."
        )


def _make_network(member: Any, model: str, expected: TileInput) -> nn.Module:
    from torchgeo.models import get_model

    if model.startswith("croma_"):
        modality = "sar" if "vv" in expected.bands else "optical"
        return get_model(model, modalities=[modality], image_size=expected.side)
    if model.startswith("dofa_"):
        return get_model(model, num_classes=0, img_size=expected.side)
    sizes = {key: value for key, value in member.meta.items() if key in ("in_chans", "img_size")}
    return get_model(model, num_classes=0, **sizes)


def _load_published(network: nn.Module, member: Any, checkpoint: str | Path | None) -> None:
    path = fetch_weights(member.url) if checkpoint is None else checkpoint
    found = read_weights(path, member.url)
    own = network.state_dict()
    needed = {k: v for k, v in found.items() if k in own or not k.startswith(_UNUSED)}
    fresh = {k: own[k] for k in _FRESH if k in own}
    load_weights(network, {**fresh, **needed}, str(path))


def _length(network: nn.Module) -> int:
    names = ("num_features", "embed_dim", "encoder_dim")
    return next(int(getattr(network, name)) for name in names if hasattr(network, name))
