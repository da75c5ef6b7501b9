"""Profiles of the catalogues that imagery comes from: where they are, how their assets are signed.

What a profile does not know, the items themselves tell: see :mod:`data_catalog.asset_metadata`.
"""

from __future__ import annotations

import threading
import time
import tomllib
from collections.abc import Callable
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import planetary_computer

from data_catalog.errors import SourceError
from data_catalog.redaction import redacted

GENERIC = "generic"
"""Profile of the catalogues that have none of their own."""

SIGNING_TIMEOUT_S = 180.0
"""Long enough to wait out a "too many requests"."""

_PROFILES: dict[str, dict[str, str]] = tomllib.loads(
    resources.files("data_catalog").joinpath("catalogues.toml").read_text()
)

NAMED_SOURCES = {name: profile["address"] for name, profile in _PROFILES.items()}
"""Addresses of the catalogues that have a name."""

SILENCE_S = 30.0
"""A signing service that failed is not asked again for so long, lest every asset waits for it."""

_SIGNING = threading.Lock()
_FAILURES: list[tuple[float, str]] = []


def profile_of(address: str) -> str:
    """The name of a catalogue's profile, ``generic`` where it has none of its own."""
    host = urlsplit(address).hostname
    hosts = {urlsplit(known).hostname: name for name, known in NAMED_SOURCES.items()}
    return hosts.get(host, GENERIC)


def sign(href: str, profile: str) -> str:
    """An asset's address as it can be read now: signed where the catalogue asks for that.

    Sign right before reading, in the process that reads, and keep the result nowhere: it is a
    secret and lives under an hour.

    Raises:
        SourceError: The signing service does not answer.
    """
    if _PROFILES.get(profile, {}).get("signing") != "planetary-computer":
        return href
    with _SIGNING:
        if _FAILURES and time.monotonic() - _FAILURES[-1][0] < SILENCE_S:
            raise SourceError(_FAILURES[-1][1])
        try:
            return _in_time(SIGNING_TIMEOUT_S, lambda: str(planetary_computer.sign_url(href)))
        except SourceError as error:
            _FAILURES[:] = [(time.monotonic(), str(error))]
            raise


def forget_tokens() -> None:
    """Makes the next signature be made with a new token: the one at hand was refused."""
    planetary_computer.sas.TOKEN_CACHE.clear()


def _in_time(seconds: float, call: Callable[[], str]) -> str:
    # The library asks for tokens without a timeout: a daemon thread keeps a dead service from
    # holding up the run or the end of the process.
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["result"] = call()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if "result" in outcome:
        return str(outcome["result"])
    cause = redacted(str(outcome.get("error", f"no answer in {seconds:g} s")))
    raise SourceError(f"The address of an asset could not be signed: {cause}")
