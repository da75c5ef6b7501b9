"""What people look at on a run's page and on the Artifacts page of the Prefect UI.

Every artifact has a key, so that the page shows the newest one and its history. Pictures are part
of the text: a browser does not open files of the machine that made them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.reporting import tell

PICTURE_WIDTH = 1000
"""Pixels, at the most: lists of artifacts are read with all that is in them."""

BARS = "▁▂▃▄▅▆▇█"


def show_table(key: str, rows: list[dict[str, Any]], title: str) -> None:
    """Shows rows as a table."""
    tell(lambda: create_table_artifact(table=rows, key=key, description=f"# {title}"))


def show_text(key: str, markdown: str) -> None:
    """Shows a text in Markdown."""
    tell(lambda: create_markdown_artifact(markdown, key=key))


def inline_address(path: Path) -> str:
    """A picture as an address that holds it all, reduced to what fits a page."""
    with Image.open(path) as picture:
        reduced = picture.convert("RGB")
    reduced.thumbnail((PICTURE_WIDTH, 10 * PICTURE_WIDTH))
    content = BytesIO()
    reduced.save(content, "JPEG", quality=80)
    data = base64.b64encode(content.getvalue()).decode()
    return f"data:image/jpeg;base64,{data}"


def curve(values: Sequence[float], width: int = 24) -> str:
    """Numbers as a line of bars; of many, some that are evenly spread."""
    low, high = min(values), max(values)
    shown, last = min(width, len(values)), len(values) - 1
    chosen = [values[i * last // max(1, shown - 1)] for i in range(shown)]
    step = (len(BARS) - 1) / ((high - low) or 1)
    return "".join(BARS[round((value - low) * step)] for value in chosen)
