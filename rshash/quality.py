"""The quality gate: codes that are no use are refused before anyone queries them."""

from __future__ import annotations

from rshash.codes import Words
from rshash.errors import CodeError
from rshash.statistics import code_statistics


def check_distinct(codes: Words, bits: int, minimum: int) -> None:
    """Refuses a table whose codes have collapsed.

    Args:
        codes: All codes of the table, uint64 (n, words).
        bits: Length of the codes.
        minimum: Distinct codes that are needed, or a quarter of the tiles where that is less.

    Raises:
        CodeError: There are fewer distinct codes.
    """
    found = code_statistics(codes, bits).distinct
    needed = min(minimum, -(-len(codes) // 4))
    if found < needed:
        raise CodeError(
            f"The codes have collapsed: {len(codes)} tiles share {found} distinct codes, "
            f"expected at least {needed}. Nothing was published; train a model on more or more "
            "varied tiles, or with other settings."
        )
