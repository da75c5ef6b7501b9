"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import os
import select
import threading


def end_with(process: int) -> None:
    """Ends this process as soon as another one has ended, however it did (on Linux).

    Else it would still write while a run that follows a killed one reads, or wait for ever.
    """
    if not hasattr(os, "pidfd_open"):
        return
    try:
        ended = os.pidfd_open(process)
    except ProcessLookupError:
        os._exit(1)

    def wait() -> None:
        select.select([ended], [], [])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
