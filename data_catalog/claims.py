"""Who is about to publish or to remove an item, in its collection's record.

Where nothing can be locked, whoever changes an item says so first in the one record that all have
to change. A later claim takes the place of an earlier one, whose publication then cannot end.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from data_catalog import stac
from data_catalog.errors import CatalogueError

FIELD = "rshash:claims"

_REMOVAL = "removal since "
_REMOVAL_HOURS = 1
"""How long a removal that was cut off keeps others out."""


class LostClaimError(CatalogueError):
    """Another has claimed the same item meanwhile."""


def claimed(pointer: dict[str, Any], item_id: str, claim: str) -> dict[str, Any]:
    """A collection's record in which an item is claimed."""
    return {**pointer, FIELD: {**pointer.get(FIELD, {}), item_id: claim}}


def released(
    pointer: dict[str, Any], item_id: str, before: dict[str, Any] | None
) -> dict[str, Any]:
    """A collection's record without an item's claim, with the others as they were before."""
    others = {k: v for k, v in (before or {}).get(FIELD, {}).items() if k != item_id}
    record = {k: v for k, v in pointer.items() if k != FIELD}
    return {**record, FIELD: others} if others else record


def check_claim(pointer: dict[str, Any] | None, item_id: str, claim: str | None) -> None:
    """Refuses to go on where another has claimed an item meanwhile.

    Raises:
        LostClaimError: The claim is not the collection's.
    """
    if claim is not None and (pointer or {}).get(FIELD, {}).get(item_id) != claim:
        raise LostClaimError(
            f"Another publisher was faster with {item_id}: nothing of this one is published. Run "
            "again on top of that."
        )


def removal() -> str:
    """A claim to remove an item."""
    return _REMOVAL + datetime.now(UTC).isoformat()


def check_not_removed(pointer: dict[str, Any] | None, item_id: str) -> None:
    """Refuses an item that is just being removed.

    Raises:
        CatalogueError: It is.
    """
    claim = str((pointer or {}).get(FIELD, {}).get(item_id, ""))
    since = claim.removeprefix(_REMOVAL)
    if since == claim:
        return
    if datetime.fromisoformat(since) > datetime.now(UTC) - timedelta(hours=_REMOVAL_HOURS):
        raise CatalogueError(
            f"{item_id} is being removed, since {stac.timestamp(datetime.fromisoformat(since))}: "
            "run again when `rshash catalog gc` has ended."
        )
