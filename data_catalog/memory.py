"""What many threads that work on large arrays need of the process's memory."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_MOST = 2**31 - 1


def keep_freed_memory() -> None:
    """Lets the process use memory again that it has freed, from now on.

    By itself glibc gives every freed array back to the system and takes it anew for the next one:
    a quarter of the time of an ingest. Does nothing where there is no glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    # Arenas of threads hold no large arrays: one for all does.
    for parameter, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _MOST), (_TRIM_THRESHOLD, _MOST)):
        mallopt(parameter, value)


class Room:
    """Bounds what is worked on at once, in shares of different size."""

    def __init__(self, size: int) -> None:
        self._size, self._free, self._changed = size, size, threading.Condition()

    @contextmanager
    def taking(self, share: int) -> Iterator[None]:
        """Waits for a share to be free and holds it; one larger than the room takes all of it."""
        share = min(share, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify_all()
