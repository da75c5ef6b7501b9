"""Errors of hash learning and search.

Each message says what was expected, what was found, and what to do.
"""


class RshashError(Exception):
    """Root of every error that rshash raises on purpose."""


class CodeError(RshashError):
    """Hash codes that are malformed or cannot be compared."""


class QualityError(RshashError):
    """Hash codes that are not good enough to be published."""


class FeatureError(RshashError):
    """Features or an extractor that cannot be used."""


class TrainingError(RshashError):
    """A training set or settings that cannot be trained on."""


class LabelError(RshashError):
    """Labels that do not fit the tiles, or that nothing can be learned from."""


class CheckpointError(TrainingError):
    """A checkpoint that is damaged or belongs to another training."""


class ModelError(RshashError):
    """A model that cannot be read, or does not fit its input."""
