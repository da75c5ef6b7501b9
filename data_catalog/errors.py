"""Errors of the catalogue. Each message says what was expected, what was found, and what to do."""

from rshash.errors import RshashError


class GridError(RshashError):
    """A tile ID, place or tile size that the grid cannot hold."""


class AreaError(RshashError):
    """An area or period that cannot be understood."""


class SensorError(RshashError):
    """A sensor, band or scene that is unknown or cannot be resolved."""


class SourceError(RshashError):
    """A source STAC catalogue that cannot be read, or has nothing to offer."""


class ReadError(RshashError):
    """Pixels that could not be read."""


class CatalogueError(RshashError):
    """The catalogue itself: no catalogue there, or something it lacks."""


class QueryError(RshashError):
    """A query that cannot be answered."""
