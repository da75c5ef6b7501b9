"""How many requests one source of imagery gets at once, whatever works on it here."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from data_catalog.profiles import GENERIC, requests_at_once

_processes = 1
_turns: dict[tuple[asyncio.AbstractEventLoop, str, int], asyncio.Semaphore] = {}


def share_requests(processes: int) -> None:
    """Tells how many processes ask the same sources as this one: each gets its part."""
    global _processes
    _processes = processes


def turn(href: str, profile: str) -> asyncio.Semaphore:
    """Held while a request is under way; belongs to the running event loop.

    Args:
        href: What is asked for: sources without a profile are told apart by their hosts.
        profile: Of the source catalogue.
    """
    source = (urlsplit(href).hostname or "") if profile == GENERIC else profile
    most = max(requests_at_once(profile) // _processes, 1)
    key = asyncio.get_running_loop(), source, most
    return _turns.setdefault(key, asyncio.Semaphore(most))
