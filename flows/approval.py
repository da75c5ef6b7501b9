"""What happens when codes fail the quality gate: the run fails, or a person decides."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import FlowPauseTimeout
from prefect.input import RunInput, keyset_from_paused_state
from prefect.runtime import flow_run
from prefect.states import Paused, State
from prefect.utilities.engine import propose_state_sync
from prefect.utilities.urls import url_for
from pydantic import Field

from flows.artifacts import one_page, show_text
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
        with one_page():
            ask = decision.with_options(flow_run_name=f"codes of {flow_run.name}")
            approved = ask(f"{reason} {question}")
    except FlowPauseTimeout:
        raise QualityError(f"{reason} Nobody decided within a day. {how}") from None
    if not approved:
        raise QualityError(f"{reason} They were rejected. {how}")


@flow(name="decision")
def decision(description: str) -> bool:
    """Waits for somebody to approve or reject codes that failed the quality gate.

    A run of its own: one of a deployment would give up its turn as it pauses, and crash.
    """
    page = url_for("flow-run", obj_id=flow_run.id)
    print(f"  {description} Approve or reject the codes at {page}", file=sys.stderr)
    show_text(
        "decision",
        f"# The codes wait for a decision\n\n{description}\n\n"
        f"[Approve or reject them]({page}) with *Resume*, within a day.\n",
    )
    return _answer(UUID(str(flow_run.id)), Decision.with_initial_data(description=description))


def _answer(run_id: UUID, question: type[Decision]) -> bool:
    """What somebody answers; a cancelled run is a rejection, which Prefect's own pause sleeps over.

    Raises:
        FlowPauseTimeout: Nobody does, for a day by the server's clock.
    """
    paused: State[None] = Paused(
        timeout_seconds=SECONDS_TO_DECIDE, reschedule=False, pause_key="decision"
    )
    form = keyset_from_paused_state(paused)
    paused.state_details.run_input_keyset = dict(cast(dict[str, str], form))
    with get_client(sync_client=True) as client:
        propose_state_sync(client, paused, flow_run_id=run_id)
        question.save(form)
        while True:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            state = client.read_flow_run(run_id).state
            if state is None or state.is_paused():
                continue
            if state.is_running():
                return cast(Decision, question.load(form)).approve
            if state.is_cancelling() or state.is_cancelled():
                return False
            raise FlowPauseTimeout("Nobody decided.")


def measure_row(measure: Measure) -> dict[str, Any]:
    """A measure as a row of a table."""
    return {
        "measure": measure.name,
        "found": round(measure.value, 4),
        "expected": f"at {'most' if measure.at_most else 'least'} {measure.threshold:.4g}",
        "tiles": measure.tiles,
        "passes": "yes" if measure.passes else "NO",
    }
