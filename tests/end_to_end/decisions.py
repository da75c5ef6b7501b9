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


def _paused_runs() -> list[FlowRun]:
    wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=wanted)


def _paused_run(answered: set[UUID | None]) -> FlowRun:
    """The flow run that waits for a decision, at another question than those answered."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        for run in _paused_runs():
            if run.state_id not in answered:
                return run
        time.sleep(0.2)
    raise AssertionError("No run waits for a decision.")


def by_the_interface(run: FlowRun, approve: bool) -> None:
    """Answers as a program would."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return resume_flow_run(run.id, run_input={"approve": approve})
        except RuntimeError:
            # A run is paused before its form is saved.
            assert time.monotonic() < deadline
            time.sleep(0.2)


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
    thread = Thread(target=copy_context().run, args=(run,), daemon=True)
    answered = {run.state_id for run in _paused_runs()}
    thread.start()
    for approve in decisions:
        waiting = _paused_run(answered)
        assert waiting.state_id is not None
        answered.add(waiting.state_id)
        meanwhile()
        answer(waiting, approve)
    thread.join(400)
    assert not thread.is_alive()
    return outcome[0]
