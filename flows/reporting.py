"""What a run tells its Prefect server, and survives not telling."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import httpx

T = TypeVar("T")

WAITS_S = (1.0, 4.0, 10.0, 20.0)
"""A server that is started again answers within half a minute."""


def tell(send: Callable[[], T], waits: Sequence[float] = WAITS_S) -> T | None:
    """Sends the Prefect server something to show; None where it stays out of reach.

    What a run shows of itself is no reason to end it.

    Args:
        send: Sends it.
        waits: Seconds before each further attempt.
    """
    for wait in (*waits, None):
        try:
            return send()
        except (httpx.HTTPError, RuntimeError) as error:
            if not _is_out_of_reach(error):
                raise
            if wait is None:
                print(f"  The Prefect server is out of reach ({error}).", file=sys.stderr)
            else:
                time.sleep(wait)
    return None


def _is_out_of_reach(error: Exception) -> bool:
    # Prefect's clients wrap what keeps them from connecting.
    cause = error if isinstance(error, httpx.HTTPError) else error.__cause__
    if isinstance(cause, httpx.HTTPStatusError):
        return cause.response.status_code >= 500
    return isinstance(cause, httpx.TransportError)
