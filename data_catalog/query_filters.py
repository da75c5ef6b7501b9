"""Filters of queries: which of the published tiles may be found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from shapely.geometry.base import BaseGeometry

from data_catalog.errors import QueryError


@dataclass(frozen=True)
class Filters:
    """What a tile must fulfil to be found; without any, all may be.

    Attributes:
        region: The tile's centre lies in it. Longitude and latitude, degrees; over the antimeridian
            it is in several parts, or its longitudes pass ±180°.
        period: First and last moment of the tile's observation; UTC where they name no zone.
        minimum_clear: Smallest clear fraction of the observation, 0 to 1.
        minimum_distance_m: Metres from the centre of the tile asked for to the found one's: a
            tile's neighbours look like it and are no discovery.
        outside_block: Whether the found tile must belong to another block of 8 × 8 tiles than the
            one asked for: tiles of one block are read from the same scenes.

    Raises:
        QueryError: A value is out of range.
    """

    region: BaseGeometry | None = None
    period: tuple[datetime, datetime] | None = None
    minimum_clear: float = 0.0
    minimum_distance_m: float = 0.0
    outside_block: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.minimum_clear <= 1.0:
            raise QueryError(
                f"The minimum clear fraction must be 0 to 1, but is {self.minimum_clear:g}."
            )
        if not self.minimum_distance_m >= 0.0:
            raise QueryError(
                f"The minimum distance must be at least 0 m, but is {self.minimum_distance_m:g} m."
            )
        if self.region is not None and not self.region.area > 0.0:
            raise QueryError(
                f"The region of a query must be a surface, but is a {self.region.geom_type} "
                "without extent: give a box or polygons, or leave it out to search everywhere."
            )
        if self.period is not None:
            first, last = (_aware(moment) for moment in self.period)
            if last < first:
                raise QueryError(f"The period of a query ends ({last}) before it starts ({first}).")
            object.__setattr__(self, "period", (first, last))

    @property
    def apply_to_tiles(self) -> bool:
        """Whether any filter is a matter of the found tile alone."""
        return self.region is not None or self.period is not None or self.minimum_clear > 0.0

    @property
    def need_a_place(self) -> bool:
        """Whether any filter is a matter of where the tile asked for lies."""
        return self.minimum_distance_m > 0.0 or self.outside_block

    def __str__(self) -> str:
        """What the found tiles fulfil, in words; empty without filters."""
        words = []
        if self.minimum_distance_m > 0.0:
            words.append(f"at least {self.minimum_distance_m / 1000:g} km away")
        if self.outside_block:
            words.append("in other blocks")
        if self.region is not None:
            west, south, east, north = self.region.bounds
            words.append(f"in a region within {west:g},{south:g},{east:g},{north:g}")
        if self.period is not None:
            first, last = self.period
            since = f" from {first:%Y-%m-%d}" if first.year > datetime.min.year else ""
            until = f" to {last:%Y-%m-%d}" if last.year < datetime.max.year else ""
            words.append(f"observed{since}{until}")
        if self.minimum_clear > 0.0:
            words.append(f"{self.minimum_clear:.0%} clear or more")
        return ", ".join(words)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
