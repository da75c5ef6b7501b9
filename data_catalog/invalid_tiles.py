"""Why tiles of a segment are invalid."""

from __future__ import annotations

import math
from typing import Any

import pyarrow.parquet as pq
import pystac

from data_catalog.catalogue import Catalogue
from data_catalog.redaction import redacted

EXAMPLES = 3
"""Tiles that are named for each cause."""


def invalid_causes(catalogue: Catalogue, segment: pystac.Item) -> list[dict[str, Any]]:
    """The causes for which tiles of a published segment are invalid, the most frequent first.

    What could not be read is named with its scene and asset.

    Returns:
        A row a cause: ``cause``, ``tiles`` (their number), ``clearest`` (the largest clear
        fraction among them) and ``such as`` (some of them).
    """
    path = catalogue.asset_path(segment, "index")
    columns = ["tile_id", "clear_fraction", "reason"]
    rows = pq.read_table(path, columns=columns, filters=[("state", "=", "invalid")]).to_pandas()
    # How unclear a tile is, and in which scenes, differs from tile to tile.
    rows["cause"] = [
        reason if reason.startswith("unreadable") else reason.partition(":")[0]
        for reason in rows["reason"].astype(str)
    ]
    return [
        {
            "cause": redacted(str(cause)),
            "tiles": len(found),
            # Down: what looks like the limit would be valid.
            "clearest": math.floor(100 * float(found["clear_fraction"].max())) / 100,
            "such as": ", ".join(found["tile_id"].head(EXAMPLES)),
        }
        for cause, found in sorted(rows.groupby("cause"), key=lambda one: -len(one[1]))
    ]
