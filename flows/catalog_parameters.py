"""What a user can set who looks after a catalogue."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from flows.parameters import CatalogParameters


class RollbackParameters(CatalogParameters):
    """How far to go back."""

    before: datetime | None = Field(
        None,
        title="Before",
        description="Of a collection: as it was before this day or moment (UTC).",
    )


class GarbageParameters(CatalogParameters):
    """What may be removed."""

    keep: int | None = Field(
        None,
        ge=0,
        title="Keep",
        description="How many superseded versions of a code table, superseded segments of a sensor "
        "and unused models stay; older ones go.",
    )
    older_than: float | None = Field(
        None,
        ge=0.0,
        title="Older than (days)",
        description="Superseded ones that were published more than this many days ago go; with "
        "--keep both must hold. Without either: only what nothing points to.",
    )
    dry_run: bool = Field(
        False, title="Dry run", description="Only tell what would go, and how many bytes."
    )
