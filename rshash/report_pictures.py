"""The pictures of an evaluation report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rshash.report import EvaluationReport

# Okabe and Ito's palette, which colour-blind readers can tell apart; styles differ too.
STYLES = (
    ("#0072B2", "-"),
    ("#D55E00", "-"),
    ("#000000", "--"),
    ("#009E73", "-."),
    ("#E69F00", ":"),
    ("#CC79A7", (0, (5, 1, 1, 1))),
    ("#56B4E9", (0, (3, 2))),
)


def draw_pictures(report: EvaluationReport, folder: Path) -> list[Path]:
    """Writes the pictures that the report has figures for, and returns their paths."""
    pictures: dict[str, Callable[[EvaluationReport, Axes], None]] = {
        "bit_balance.png": _bit_balance,
        "distances.png": _distances,
    }
    if any(entry.quality for entry in report.entries):
        pictures = {"precision_recall.png": _precision_recall, **pictures}
    return [_save(folder / name, report, draw) for name, draw in pictures.items()]


def _save(
    path: Path, report: EvaluationReport, draw: Callable[[EvaluationReport, Axes], None]
) -> Path:
    # Without pyplot, which is neither thread-safe nor forgetful.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    draw(report, axes)
    figure.savefig(path, metadata={"Software": None})
    return path


def _precision_recall(report: EvaluationReport, axes: Axes) -> None:
    for i, entry in enumerate(report.entries):
        if entry.quality is None:
            continue
        colour, style = STYLES[i % len(STYLES)]
        own = entry.name.partition(",")[0] in (report.method, *report.statistics)
        axes.plot(
            entry.quality.recall,
            entry.quality.precision,
            color=colour,
            linestyle=style,
            linewidth=2.4 if own else 1.5,
            label=entry.name,
        )
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    axes.set_title("Precision and recall over the ranking, mean over queries", fontsize=11)
    # Good curves fill the plot: no corner of it is sure to be free.
    axes.figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)


def _bit_balance(report: EvaluationReport, axes: Axes) -> None:
    for i, ((kind, found), (colour, _)) in enumerate(
        zip(report.statistics.items(), STYLES, strict=False)
    ):
        label = f"{kind}: {found.distinct:,} distinct of {found.codes:,}"
        bits = np.arange(len(found.bit_balance))
        if i == 0:
            axes.bar(bits, found.bit_balance, width=0.8, color=colour, label=label)
        else:
            edges = np.append(bits, len(bits)) - 0.5
            axes.stairs(found.bit_balance, edges, color=colour, linewidth=1.8, label=label)
    axes.axhline(0.5, color="black", linewidth=1, linestyle="--", label="balanced")
    axes.set(xlabel="bit", ylabel="share of ones", xlim=(-1, report.bits), ylim=(0, 1))
    axes.set_title(f"Bit balance of {report.method}", fontsize=11)
    axes.legend(fontsize=8.5, loc="upper right")


def _distances(report: EvaluationReport, axes: Axes) -> None:
    for (kind, counts), (colour, style) in zip(report.distances.items(), STYLES, strict=False):
        edges = np.arange(len(counts) + 1) - 0.5
        share = np.array(counts) / max(1, sum(counts))
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.25)
        axes.stairs(share, edges, color=colour, linewidth=1.8, linestyle=style, label=kind)
    axes.set(
        xlabel="Hamming distance in bits",
        ylabel="share of the pairs",
        xlim=(-0.5, report.bits + 0.5),
    )
    axes.set_ylim(bottom=0)
    axes.set_title(f"Distances between queries and tiles, {report.method}", fontsize=11)
    axes.legend(fontsize=8.5, title="pairs", title_fontsize=8.5)
