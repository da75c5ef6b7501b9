"""What people look at on a run's page and on the Artifacts page of the Prefect UI.

Every artifact has a key, so that the page shows the newest one and its history, and a summary,
which the run's page shows of it. Pictures are part of the text: a browser does not open files of
the machine that made them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

from PIL import Image
from prefect.artifacts import MarkdownArtifact
from prefect.context import FlowRunContext

from data_catalog.redaction import redacted
from flows.reporting import tell
from flows.tables import markdown_table

PICTURE_WIDTH = 1000
"""Pixels, at the most: lists of artifacts are read with all that is in them."""

MANY_ROWS = 100
"""Rows of a table that is shown in part."""

_page: ContextVar[UUID | None] = ContextVar("page", default=None)


@contextmanager
def one_page() -> Iterator[None]:
    """Shows what the flows inside show on this run's page, or on the one that it is shown on."""
    context = FlowRunContext.get()
    token = _page.set(page() or (context.flow_run.id if context and context.flow_run else None))
    try:
        yield
    finally:
        _page.reset(token)


def page() -> UUID | None:
    """The flow run whose page artifacts belong to, if it is not the one that makes them."""
    return _page.get()


def show_text(key: str, markdown: str, summary: str = "") -> None:
    """Shows a text in Markdown; its summary, or else its first line, is for the run's page."""
    line = redacted(summary or markdown.strip().partition("\n")[0].lstrip("# "))
    key = re.sub("[^a-z0-9-]", "-", key)  # what Prefect takes; IDs of sensors have more
    shown = MarkdownArtifact(markdown=markdown, key=key, description=line, flow_run_id=page())
    tell(shown.create)


def show_table(key: str, rows: list[dict[str, Any]], title: str, summary: str = "") -> None:
    """Shows rows as a table; without a summary the title is it."""
    more = f"\n\nand {len(rows) - MANY_ROWS:,} more" if len(rows) > MANY_ROWS else ""
    text = f"# {title}\n\n{markdown_table(rows[:MANY_ROWS])}{more}\n"
    show_text(key, redacted(text), summary)


def inline_address(picture: Path | Image.Image, kind: str = "JPEG") -> str:
    """A picture as an address that holds it all, reduced to what fits a page.

    Args:
        picture: A picture, or its file.
        kind: JPEG for photographs, PNG for drawings.
    """
    if isinstance(picture, Path):
        with Image.open(picture) as opened:
            reduced = opened.convert("RGB")
    else:
        reduced = picture.convert("RGB")
    reduced.thumbnail((PICTURE_WIDTH, 10 * PICTURE_WIDTH))
    content = BytesIO()
    if kind == "PNG":
        # Drawings have few colours: a third of the bytes.
        reduced.quantize(128).save(content, kind, optimize=True)
    else:
        reduced.save(content, kind, quality=80)
    data = base64.b64encode(content.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{data}"


def loss_curves(losses: Mapping[str, Sequence[float]]) -> Image.Image:
    """Draws the losses of a training, a plot for each stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 2.8), dpi=100, layout="constrained")
    for axes, (stage, values) in zip(
        figure.subplots(1, len(losses), squeeze=False)[0], losses.items(), strict=True
    ):
        axes.plot(range(1, len(values) + 1), values, color="#0072B2", linewidth=1.8, marker=".")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.set_title(f"{stage}: {values[-1]:.4g} after {len(values)} epochs", fontsize=10)
        axes.set(xlabel="epoch", ylabel="loss")
        axes.xaxis.get_major_locator().set_params(integer=True)
    content = BytesIO()
    figure.savefig(content, format="png")
    return Image.open(content)
