"""What the page of a run tells: what was published where, what changed, and what went wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import Flow
from prefect.artifacts import ArtifactRequest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import State

from data_catalog.catalogue import Catalogue
from data_catalog.change_map import Changes, draw_changes, read_changes
from data_catalog.code_tables import collection_of
from data_catalog.invalid_tiles import invalid_causes
from data_catalog.pictures import retrieval_sheet
from data_catalog.query import open_codes
from data_catalog.redaction import redacted
from data_catalog.segments import collection_of as segments_of
from flows.artifacts import inline_address, show_table, show_text
from flows.tables import markdown_table
from rshash.errors import RshashError

_BEFORE_CAUSE = re.compile(
    r"^(Flow run encountered an exception: |Validation of flow parameters failed with error: )+"
)

NEIGHBOURS = 10
FLIPPED_TILES = 10
"""Tiles with the most flipped bits that are named below the map."""


def address_of(catalogue: Catalogue, collection: str, item_id: str) -> str:
    """Where an item is, as Markdown: a link where a browser can follow it."""
    href = redacted(str(catalogue.item(collection, item_id).get_self_href()))
    return f"[{item_id}]({href})" if href.startswith(("http://", "https://")) else f"`{href}`"


def show_invalid(catalogue: Catalogue, sensor: str, segment_id: str) -> None:
    """Shows why tiles of a segment are invalid, if any are."""
    rows = invalid_causes(catalogue, catalogue.item(segments_of(sensor), segment_id))
    if not rows:
        return
    number = sum(row["tiles"] for row in rows)
    causes = ", ".join(f"{row['tiles']:,} {_briefly(row['cause'])}" for row in rows[:3])
    show_table(
        f"invalid-tiles-{sensor}",
        rows,
        f"Invalid tiles of {sensor}: {number:,}",
        f"Invalid tiles of {sensor}: {number:,}, of these {causes}.",
    )


def show_changes(catalogue: Catalogue, model_id: str, published: Sequence[dict[str, Any]]) -> None:
    """Shows the map of tiles that changed, and places like one of them.

    Args:
        catalogue: Holds the code tables.
        model_id: Whose codes they are.
        published: A row for each new version, with its ``item``.
    """
    if not published:
        return
    collection = collection_of(model_id)
    ids = [row["item"] for row in published]
    changes = read_changes(catalogue, [catalogue.item(collection, item_id) for item_id in ids])
    appeared = int(changes.tiles["flipped_bits"].isna().sum())
    flipped = changes.most_flipped
    told = f"{appeared:,} tiles appeared, {len(flipped):,} have a new code"
    text = [
        f"# {told}",
        f"![The tiles that changed]({_map_address(changes, model_id)})",
        f"Published: {', '.join(address_of(catalogue, collection, one) for one in ids)}.",
    ]
    if len(flipped):
        rows = [
            {"tile": tile_id, "bits flipped": int(bits)}
            for tile_id, bits in flipped.head(FLIPPED_TILES).itertuples(index=False)
        ]
        text.append(f"## Changed most, of {changes.bits} bits\n\n{markdown_table(rows)}")
    show_text("changed-tiles", "\n\n".join(text) + "\n", f"{told}: the map.")
    _show_similar(catalogue, model_id, changes)


def _map_address(changes: Changes, model_id: str) -> str:
    return inline_address(draw_changes(changes, f"What changed in codes of {model_id}"), "PNG")


def _show_similar(catalogue: Catalogue, model_id: str, changes: Changes) -> None:
    flipped = changes.most_flipped
    tile_id = str((flipped if len(flipped) else changes.tiles)["tile_id"].iloc[0])
    try:
        codes = open_codes(catalogue, model_id)
        found = codes.search.like_tiles([tile_id], NEIGHBOURS)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "similar.png"
            retrieval_sheet(catalogue, codes, found.frame_of_one(), path)
            picture = inline_address(path)
    except (RshashError, OSError) as error:
        # What is published stands, whether or not it can be drawn.
        show_text("similar", f"No picture: {redacted(str(error))}\n", "No picture could be drawn.")
        return
    why = "changed most" if len(flipped) else "is new"
    text = f"# Places like {tile_id}, which {why}\n\n![Tiles with similar codes]({picture})\n"
    show_text("similar", text, f"Places like {tile_id}, which {why}: the retrieval sheet.")


def tell_of_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Shows on a run's page what ended it, and what to do: a hook of flows."""
    said = redacted(state.message or "It ended without a word.")
    cause = _BEFORE_CAUSE.sub("", said)
    text = (
        f"# What happened\n\nThe run of `{flow.name}` ended as {state.name}: {cause}\n\n"
        f"# What to do\n\n{_advice(cause, state)}\n\n"
        "Nothing that was published before is lost or changed. What this run had read or made is "
        "kept until it is published: the same run, started again, goes on from there, and the next "
        "scheduled one does so by itself.\n"
    )
    with get_client(sync_client=True) as client:
        client.create_artifact(
            ArtifactRequest(
                type="markdown",
                key="failure",
                description=cause if len(cause) <= 300 else f"{cause[:299]}…",
                data=text,
                flow_run_id=flow_run.id,
            )
        )


def _advice(cause: str, state: State[Any]) -> str:
    kind = cause.partition(":")[0]
    if state.is_crashed():
        return "The process was ended from outside, or ran out of memory: start the run again."
    if kind in ("ConnectionError", "TimeoutError"):
        return "See whether the source catalogue is in reach, then start the run again."
    if kind == "ParameterTypeError" or kind in _own_errors():
        return "The message above says what to check or to change. Then start the run again."
    return "The log on the tab Logs has the details. If they name nothing to mend, report them."


def _own_errors() -> set[str]:
    found, kinds = set(), [RshashError]
    while kinds:
        kind = kinds.pop()
        found.add(kind.__name__)
        kinds += kind.__subclasses__()
    return found


def _briefly(cause: str) -> str:
    return cause if len(cause) <= 80 else f"{cause[:79]}…"
