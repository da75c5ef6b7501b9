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

REQUESTS = 64
"""Requests for pixels that a catalogue without a profile gets at once."""

_PROFILES: dict[str, dict[str, Any]] = tomllib.loads(
    resources.files("data_catalog").joinpath("catalogues.toml").read_text()
)

NAMED_SOURCES: dict[str, str] = {name: profile["address"] for name, profile in _PROFILES.items()}
"""Addresses of the catalogues that have a name."""

SILENCE_S = 30.0
"""A service that did not answer in time is not asked again for so long: every asset would wait."""

_SIGNING = threading.Lock()
_silent_until = 0.0


def profile_of(address: str) -> str:
    """The name of a catalogue's profile, ``generic`` where it has none of its own."""
    host = urlsplit(address).hostname
    hosts = {urlsplit(known).hostname: name for name, known in NAMED_SOURCES.items()}
    return hosts.get(host, GENERIC)


def requests_at_once(profile: str) -> int:
    """How many requests for pixels a catalogue gets at once, from all of a run."""
    return int(_PROFILES.get(profile, {}).get("requests", REQUESTS))


def sign(href: str, profile: str) -> str:
    """An asset's address as it can be read now: signed where the catalogue asks for that.

    Sign right before reading, in the process that reads, and keep the result nowhere: it is a
    secret and lives under an hour.

    Raises:
        SourceError: The signing service does not answer.
    """
    if _PROFILES.get(profile, {}).get("signing") != "planetary-computer":
        return href
    global _silent_until
    with _SIGNING:
        if time.monotonic() < _silent_until:
            raise _unsigned("the service has just not answered")
        try:
            return _in_time(SIGNING_TIMEOUT_S, lambda: str(planetary_computer.sign_url(href)))
        except TimeoutError as error:
            _silent_until = time.monotonic() + SILENCE_S
            raise _unsigned(str(error)) from None
        except Exception as error:  # of one address: others may well be signed
            raise _unsigned(redacted(str(error))) from None


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
    if "error" in outcome:
        raise outcome["error"]
    if "result" not in outcome:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return str(outcome["result"])


def _unsigned(cause: str) -> SourceError:
    return SourceError(f"The address of an asset could not be signed: {cause}")
