"""The kinds of feature extractors."""

from rshash.extractors.mosaiks import Mosaiks
from rshash.extractors.timm import TimmExtractor
from rshash.extractors.torchgeo import TorchGeoExtractor

KINDS = {"mosaiks": Mosaiks, "timm": TimmExtractor, "torchgeo": TorchGeoExtractor}
"""Extractors by the "kind" in their spec."""
