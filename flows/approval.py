"""What happens when codes fail the quality gate: the run fails, or a person decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import pause_flow_run
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput
from pydantic import Field

from flows.quality_parameters import QualityParameters
from rshash.errors import QualityError
from rshash.quality import Measure, failures

SECONDS_TO_DECIDE = 24 * 3600
SECONDS_BETWEEN_LOOKS = 10


class Decision(RunInput):
    """Whether codes that failed the quality gate are used all the same."""

    approve: bool = Field(
        False,
        title="Approve these codes",
        description="On: the run goes on as if they had passed. Off: they are rejected; what was "
        "published and in use before stays.",
    )


def require_approval(
    parameters: QualityParameters, measures: Sequence[Measure], question: str, how: str
) -> None:
    """Returns where codes pass, or once somebody approves of codes that do not.

    Args:
        parameters: Whether somebody is to be asked.
        measures: What was measured of the codes.
        question: What is asked.
        how: Stands behind the reason: what became of the codes, and what to do about it.

    Raises:
        QualityError: Nobody approves, or nobody is to be asked.
    """
    failed = failures(measures)
    if not failed:
        return
    reason = f"The codes failed the quality gate: {'; '.join(failed)}."
    if parameters.on_failure == "stop":
        raise QualityError(f"{reason} {how}")
    try:
        decision = pause_flow_run(
            wait_for_input=Decision.with_initial_data(description=f"{reason} {question}"),
            timeout=SECONDS_TO_DECIDE,
            poll_interval=SECONDS_BETWEEN_LOOKS,
        )
    except FlowPauseTimeout:
        raise QualityError(f"{reason} Nobody decided within a day. {how}") from None
    if not decision.approve:
        raise QualityError(f"{reason} They were rejected. {how}")


def measure_row(measure: Measure) -> dict[str, Any]:
    """A measure as a row of a table."""
    return {
        "measure": measure.name,
        "found": round(measure.value, 4),
        "expected": f"at {'most' if measure.at_most else 'least'} {measure.threshold:g}",
        "tiles": measure.tiles,
        "passes": "yes" if measure.passes else "NO",
    }
