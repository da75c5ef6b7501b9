"""Tables on the terminal and on the pages of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

if TYPE_CHECKING:
    from data_catalog.query_found import Found

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
    _print(table)


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; few rows with many columns are turned on their side."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    if not rows:
        return "Nothing."
    if len(keys) > MANY_COLUMNS and len(rows) < len(keys) / 2:
        lines = [
            [key.replace("_", " "), *(_cell(key, row.get(key)) for row in rows)] for key in keys
        ]
        lines.insert(1, ["---"] * (1 + len(rows)))
    else:
        numeric = [all(isinstance(row.get(k), int | float | None) for row in rows) for k in keys]
        lines = [[key.replace("_", " ") for key in keys]]
        lines.append(["---:" if right else "---" for right in numeric])
        lines += [[_cell(key, row.get(key)) for key in keys] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def print_contents(rows: list[dict[str, Any]], title: str) -> None:
    """Prints what a catalogue holds, collection by collection."""
    if not rows:
        print(f"{title}: nothing")
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("item", "version", "rows", "published", "size"):
        justify: Literal["left", "right"] = "left" if heading == "item" else "right"
        table.add_column(heading, justify=justify, overflow="fold")
    collection = None
    for row in rows:
        if row["collection"] != collection:
            collection = row["collection"]
            table.add_row(f"[bold]{collection}")
        published = row["published"][:16].replace("T", " ")
        item = f"{row['item']}{' (in use)' if row['in_use'] else ''}"
        cells = [row["version"], _text("rows", row["rows"]), published, _text("size", row["size"])]
        table.add_row(f"  {item}", *cells)
    _print(table)


def print_similar(found: Found, bits: int) -> None:
    """Prints the tiles that one query found, nearest first."""
    [query] = found.queries
    tiles = found.tiles
    rows = [
        {
            "tile ID": tile_id,
            "distance": f"{distance:.4g}",
            "km away": f"{away_km:.1f}",
            "lon, lat": f"{lon:.4f}, {lat:.4f}",
            "observed": str(day),
        }
        for tile_id, distance, away_km, (lon, lat), day in zip(
            tiles.tile_ids,
            found.distances,
            found.away_km,
            tiles.centres,
            tiles.datetimes.astype("datetime64[D]"),
            strict=True,
        )
    ]
    for row in rows:
        if row["km away"] == "nan":
            del row["km away"]
    measured = f"Hamming distance of {bits} bits"
    if (found.distances < 0).any():
        measured = f"mean {measured} to these, less half of that to the others"
    print_rows(rows, f"Most similar to {query} ({measured})")


def _print(table: Table) -> None:
    Console(width=None if Console().is_terminal else WIDE).print(table)


def _cell(key: str, value: Any) -> str:
    return _text(key, value).replace("|", "\\|").replace("\n", " ")


def duration(seconds: float) -> str:
    """A time in the unit that suits it: 0.4 s, 12 s, 3 min 20 s or 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _text(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key in ("bytes", "stored_bytes", "size"):
        return decimal(value)
    if key == "duration":
        return _duration(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(int(seconds), 1)} s"
    minutes = -(-int(seconds) // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:,.0f} h"
