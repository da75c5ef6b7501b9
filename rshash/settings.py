"""What settings may be, checked by name before any work starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from rshash.errors import TrainingError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


class Allowed(NamedTuple):
    """What a setting may be, in words and as a test."""

    description: str
    includes: Callable[[Any], bool]


def whole(least: int) -> Allowed:
    """Whole numbers from a least one on."""
    return Allowed(f"a whole number of at least {least}", lambda v: _is_whole(v) and v >= least)


def random_seed() -> Allowed:
    """What torch takes as a seed."""
    return Allowed(
        "a whole number from 0 to 2**64 - 1", lambda v: _is_whole(v) and 0 <= v < 1 << 64
    )


def at_least(least: float) -> Allowed:
    """Finite numbers from a least one on."""
    return Allowed(f"a finite number of at least {least:g}", lambda v: _is_finite(v) and v >= least)


def above(bound: float) -> Allowed:
    """Finite numbers above a bound."""
    return Allowed(f"a finite number above {bound:g}", lambda v: _is_finite(v) and v > bound)


def share() -> Allowed:
    """Numbers from 0 to below 1."""
    return Allowed("a number from 0 to below 1", lambda v: _is_finite(v) and 0 <= v < 1)


def one_of(*choices: str) -> Allowed:
    """Some words."""
    return Allowed(" or ".join(choices), lambda v: v in choices)


def optional(allowed: Allowed) -> Allowed:
    """The same, or None."""
    return Allowed(f"None or {allowed.description}", lambda v: v is None or allowed.includes(v))


def one_or_each(allowed: Allowed) -> Allowed:
    """One that holds for all, or a tuple of one for each."""
    return Allowed(
        f"{allowed.description}, or a tuple of those",
        lambda v: all(map(allowed.includes, v if isinstance(v, tuple) else [v])),
    )


def checked(settings: S, allowed: Mapping[str, Allowed]) -> S:
    """The settings, with numpy's numbers as Python's, which JSON takes.

    Args:
        settings: Settings of any method.
        allowed: By name what they may be.

    Raises:
        TrainingError: One is not, which is named.
    """
    values = {name: _plain(value) for name, value in asdict(settings).items()}
    for name, rule in allowed.items():
        if not rule.includes(values[name]):
            raise TrainingError(f"{name} is {rule.description}, but found {values[name]!r}.")
    return replace(settings, **values)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(_plain(part) for part in value)
    return value.item() if isinstance(value, np.generic) else value


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
