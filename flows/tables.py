"""Tables on the terminal and on the pages of runs."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

WIDE = 140
"""Columns of a table that is not shown on a terminal."""

MANY_COLUMNS = 6
"""Few rows with more columns than this are turned on their side."""


def print_rows(rows: list[dict[str, Any]], title: str) -> None:
    """Prints rows under one heading; columns are the keys in the order they appear."""
    if not rows:
        print(f"{title}: nothing")
        return
    keys = list(dict.fromkeys(key for row in rows for key in row))
    if len(keys) > MANY_COLUMNS and len(rows) < len(keys) / 2:
        table = Table(title=title, title_justify="left", show_header=False)
        for key in keys:
            table.add_row(key.replace("_", " "), *(_text(key, row.get(key)) for row in rows))
    else:
        table = Table(title=title, title_justify="left")
        for key in keys:
            numeric = all(isinstance(row.get(key), int | float | None) for row in rows)
            heading = key.replace("_", " ")
            table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(_text(key, row.get(key)) for key in keys))
    console = Console()
    Console(width=None if console.is_terminal else WIDE).print(table)


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table, turned on its side: a line per key, a column per row."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[key.replace("_", " "), *(_text(key, row.get(key)) for row in rows)] for key in keys]
    lines.insert(1, ["---"] * (1 + len(rows)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def print_similar(tile_id: str, similar: gpd.GeoDataFrame, bits: int) -> None:
    """Prints the tiles most like a tile, nearest first."""
    rows = [
        {
            "tile ID": row.tile_id,
            "distance": row.distance,
            "km away": f"{row.away_km:.1f}",
            "lon, lat": f"{row.lon:.4f}, {row.lat:.4f}",
            "observed": f"{row.datetime:%Y-%m-%d}",
        }
        for row in similar.itertuples()
    ]
    print_rows(rows, f"Most similar to {tile_id} (Hamming distance of {bits} bits)")


def _text(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key in ("bytes", "size"):
        return decimal(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
