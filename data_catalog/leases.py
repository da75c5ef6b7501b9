"""One night at a time in a bucket, whatever machine it runs on.

Nothing can be locked there: a record says until when a night has the catalogue, and is renewed as
long as it lasts. In a folder the lock of :mod:`data_catalog.nights` does it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from data_catalog import stac
from data_catalog.catalogue_address import is_in_bucket
from data_catalog.errors import CatalogueError

if TYPE_CHECKING:
    from data_catalog.object_store import BucketStore

LEASE = ".night-lease.json"

LEASE_SECONDS = 300.0
"""How long the lease of a killed night keeps others out."""


class LeasedError(CatalogueError):
    """Another night has the catalogue."""


class Lease:
    """A night's hold on a catalogue."""

    def __init__(self) -> None:
        self.lost: LeasedError | None = None

    def check(self) -> None:
        """Says whether the night still has the catalogue.

        Raises:
            LeasedError: Another night has it: this one could not renew its lease in time.
        """
        if self.lost is not None:
            raise LeasedError(f"This night could not renew its lease in time. {self.lost}")


@contextmanager
def leased(catalog: str, seconds: float = LEASE_SECONDS) -> Iterator[Lease]:
    """Keeps nights of other machines out of a catalogue in a bucket while it lasts.

    Args:
        catalog: Address of the catalogue, which need not be there yet; of a folder nothing is done.
        seconds: How long a lease lasts; it is renewed five times as often.

    Raises:
        LeasedError: Another night is under way; the message says where and since when.
    """
    lease = Lease()
    if not is_in_bucket(catalog):
        yield lease
        return
    from data_catalog.object_store import BucketStore

    store, holder, ended = BucketStore(catalog), _holder(), threading.Event()
    _renew(store, holder, seconds)
    renewing = threading.Thread(
        target=_keep, args=(store, holder, seconds, ended, lease), name="renew lease", daemon=True
    )
    renewing.start()
    try:
        yield lease
    finally:
        ended.set()
        renewing.join(60)
        with suppress(CatalogueError):  # The bucket may be away: the lease ends by itself.
            if (store.read_json(LEASE) or {}).get("id") == holder["id"]:
                store.remove(LEASE)


def _renew(store: BucketStore, holder: dict[str, Any], seconds: float) -> None:
    def renewed(old: dict[str, Any] | None) -> dict[str, Any]:
        now = datetime.now(UTC)
        if old and old["id"] != holder["id"] and datetime.fromisoformat(old["until"]) > now:
            raise LeasedError(
                f"Another night is at work in {store} (process {old['process']} on "
                f"{old['machine']}, since {old['since']}): let it end. If it was killed, its lease "
                f"ends at {old['until']}."
            )
        return {**holder, "until": (now + timedelta(seconds=seconds)).isoformat()}

    store.update_json(LEASE, renewed)


def _keep(
    store: BucketStore,
    holder: dict[str, Any],
    seconds: float,
    ended: threading.Event,
    lease: Lease,
) -> None:
    while not ended.wait(seconds / 5):
        try:
            _renew(store, holder, seconds)
        except LeasedError as error:
            lease.lost = error
            return
        except CatalogueError:  # the bucket may answer again before the lease is over
            continue


def _holder() -> dict[str, Any]:
    return {
        "id": uuid4().hex,
        "machine": socket.gethostname(),
        "process": os.getpid(),
        "since": stac.timestamp(),
    }
