"""The scenes of a run as a table that STAC tools read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pystac
import stac_geoparquet.arrow
from shapely.geometry import mapping

from data_catalog.redaction import redacted, redacted_record
from data_catalog.scenes import scene_area

# Its debug messages cannot be formatted, and the others tell of memory.
logging.getLogger(stac_geoparquet.arrow.__name__).setLevel(logging.WARNING)

SCENES_FILE = "scenes.parquet"


def write_scenes(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes scenes as stac-geoparquet, without secrets.

    Assets and links whose addresses hold more than may be kept, such as previews that are made on
    demand, keep what precedes the query; of links only the scenes' own addresses are kept.

    Args:
        path: The file.
        records: STAC items; at least one.
    """
    table = stac_geoparquet.arrow.parse_stac_items_to_arrow([_row(record) for record in records])
    stac_geoparquet.arrow.to_parquet(table, path, compression="zstd")


def scenes_asset(path: Path) -> pystac.Asset:
    """The asset of a staged table of scenes."""
    return pystac.Asset(
        f"./{path.name}",
        "Scenes",
        "The scenes that the search found and the tiles were chosen from (stac-geoparquet).",
        "application/vnd.apache.parquet",
        ["metadata"],
    )


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    links = [
        {"rel": "self", "href": redacted(link["href"]), "type": "application/geo+json"}
        for link in record["links"]
        if link["rel"] == "self"
    ]
    row: dict[str, Any] = redacted_record(dict(record) | {"links": links})
    if row.get("geometry") is None:
        row["geometry"] = mapping(scene_area(pystac.Item.from_dict(row)))
    return row
