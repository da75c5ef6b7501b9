"""The text of an evaluation report, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rshash.report import Entry, EvaluationReport

CAPTIONS = {
    "precision_recall.png": "Precision and recall",
    "bit_balance.png": "Share of ones in each bit",
    "distances.png": "Distances between queries and database tiles",
}


def as_markdown(report: EvaluationReport, pictures: Sequence[str], head: str | None = None) -> str:
    """The report's tables, its notes and links to its pictures, by their file names.

    Args:
        report: The report.
        pictures: File names.
        head: What stands in place of its title.
    """
    parts = [head or f"# Evaluation of {report.method}, {report.bits} bit"]
    parts.append(_comparison(report.entries))
    parts.append(_statistics(report))
    if report.flipped_bits is not None:
        parts.append(
            f"Since the version before, {report.flipped_tiles:.1%} of the tiles have another code; "
            f"{report.flipped_bits:.2f} bits of a tile flipped on average."
        )
    parts += [f"![{CAPTIONS[name]}]({name})" for name in pictures]
    parts.append("## How it was measured\n\n" + "\n".join(f"- {note}" for note in _notes(report)))
    return "\n\n".join(parts) + "\n"


def _comparison(entries: Sequence[Entry]) -> str:
    head = ["codes or features", "bytes a tile"]
    cuts = next((list(entry.quality.mean_ap_at) for entry in entries if entry.quality), None)
    agreement = any(entry.agreement is not None for entry in entries)
    if cuts is not None:
        head += ["mean AP", *(f"at {cut}" for cut in cuts)]
    if agreement:
        head.append("agreement")
    rows = []
    for entry in entries:
        row = [entry.name, f"{entry.bytes_per_tile:,}"]
        if entry.quality is not None:
            figures = entry.quality.mean_ap, *entry.quality.mean_ap_at.values()
            row += [f"{figure:.3f}" for figure in figures]
        if agreement:
            row.append("" if entry.agreement is None else f"{entry.agreement:.3f}")
        rows.append(row)
    return table(head, rows)


def _statistics(report: EvaluationReport) -> str:
    rows = []
    for kind, found in report.statistics.items():
        low, high = min(found.bit_balance), max(found.bit_balance)
        rows.append(
            [
                kind,
                f"{found.codes:,}",
                f"{found.distinct:,}",
                f"{low:.2f} to {high:.2f}",
                f"{found.mean_abs_bit_correlation:.2f}",
                f"{found.max_abs_bit_correlation:.2f}",
            ]
        )
    head = ["", "tiles", "distinct codes", "ones in a bit", "bit correlation, mean", "largest"]
    return table(head, rows)


def _notes(report: EvaluationReport) -> list[str]:
    notes = list(report.notes)
    quality = next((entry.quality for entry in report.entries if entry.quality), None)
    if quality is not None:
        notes.append(
            f"Mean average precision over the full ranking and over its first tiles, over "
            f"{quality.queries:,} queries that have something relevant; tiles that are equally far "
            "count in expectation."
        )
    return notes


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; all but the first are figures, to the right."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), f"| {' | '.join(rule)} |", *map(line, rows)])
