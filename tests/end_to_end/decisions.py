"""Flows that ask a person, and the person's answers."""

import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from threading import Thread
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.flow_runs import resume_flow_run


def _paused_run(answered: set[UUID]) -> FlowRun:
    """The flow run that waits for a decision, at another question than those answered."""
    wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            for run in client.read_flow_runs(flow_run_filter=wanted):
                if run.state_id not in answered:
                    return run
            time.sleep(0.2)
    raise AssertionError("No run waits for a decision.")


def by_the_interface(run: FlowRun, approve: bool) -> None:
    """Answers as a program would."""
    resume_flow_run(run.id, run_input={"approve": approve})


def decided(
    flow: Callable[[], object],
    decisions: Sequence[bool],
    meanwhile: Callable[[], None] = lambda: None,
    answer: Callable[[FlowRun, bool], None] = by_the_interface,
) -> object:
    """What a flow returns, or fails with, once its questions are answered.

    Args:
        flow: Runs it.
        decisions: Whether what it asks is approved, question by question.
        meanwhile: Called before each answer.
        answer: How.
    """
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(flow())
        except Exception as error:
            outcome.append(error)

    # The settings that name the server are this thread's own.
    thread = Thread(target=copy_context().run, args=(run,))
    thread.start()
    answered: set[UUID] = set()
    for approve in decisions:
        waiting = _paused_run(answered)
        assert waiting.state_id is not None
        answered.add(waiting.state_id)
        meanwhile()
        answer(waiting, approve)
    thread.join(200)
    return outcome[0]
