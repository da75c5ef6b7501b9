"""Tables on the terminal."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
from rich.console import Console
from rich.table import Table

console = Console()


def print_rows(rows: list[dict[str, Any]], title: str) -> None:
    """Prints rows under one heading; columns are the keys in the order they appear."""
    if not rows:
        print(f"{title}: nothing")
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title, title_justify="left")
    for column in columns:
        numeric = all(isinstance(row.get(column, 0), int | float) for row in rows)
        table.add_column(
            column.replace("_", " "), justify="right" if numeric else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(_text(row.get(column)) for column in columns))
    console.print(table)


def print_similar(tile_id: str, similar: gpd.GeoDataFrame, bits: int) -> None:
    """Prints the tiles most like a tile, nearest first."""
    rows = [
        {
            "tile ID": row.tile_id,
            f"Hamming distance (of {bits})": row.distance,
            "km away": f"{row.away_km:.1f}",
            "lon, lat": f"{row.lon:.4f}, {row.lat:.4f}",
            "observed": f"{row.datetime:%Y-%m-%d}",
        }
        for row in similar.itertuples()
    ]
    print_rows(rows, f"Most similar to {tile_id}")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)
