"""Flows that ask a person, and the person's answers."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from threading import Thread
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.flow_runs import resume_flow_run


async def _paused_run(answered: set[UUID]) -> Any:
    """The flow run that waits for a decision, at another question than those answered."""
    async with get_client() as client:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            state = {"type": {"any_": ["PAUSED"]}}
            found = await client.read_flow_runs(
                flow_run_filter=FlowRunFilter.model_validate({"state": state})
            )
            for run in found:
                if run.state_id not in answered:
                    return run
            await asyncio.sleep(0.2)
    raise AssertionError("No run waits for a decision.")


def decided(
    flow: Callable[[], object],
    decisions: Sequence[bool],
    meanwhile: Callable[[], None] = lambda: None,
) -> object:
    """What a flow returns, or fails with, once its questions are answered by the form.

    Args:
        flow: Runs it.
        decisions: Whether what it asks is approved, question by question.
        meanwhile: Called before each answer.
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
        waiting = asyncio.run(_paused_run(answered))
        answered.add(waiting.state_id)
        meanwhile()
        resume_flow_run(waiting.id, run_input={"approve": approve})
    thread.join(100)
    return outcome[0]
