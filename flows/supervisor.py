"""Processes that are started together, started again when they die, and ended together.

All of them, and what they start, carry the home's path in their environment. So whatever a killed
supervisor left behind is known by it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MARK = "RSHASH_UP_HOME"
"""Variable of the environment that says to which home a process belongs."""

FLOW_RUN = "PREFECT__FLOW_RUN_ID"

LONGEST_WAIT_S = 60.0
STEADY_S = 300.0
"""A process that lived so long is started again at once."""

LOG_BYTES = 20 * 1024**2
"""Of a log that is put aside when its process starts."""


@dataclass
class Child:
    """A process that is to run all the time.

    Attributes:
        name: For messages, and of its log.
        command: What to run.
        environment: All its variables.
        log: File that gets all it says.
        end_seconds: How long it may take to end in good order.
    """

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    end_seconds: float = 10.0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _started: float = field(default=0.0, repr=False)
    _wait: float = field(default=0.0, repr=False)
    _due: float | None = field(default=None, repr=False)

    def start(self) -> subprocess.Popen[bytes]:
        """Starts it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as output:
            # A session of its own: Ctrl+C is for the supervisor, which ends all in order.
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started, self._due = time.monotonic(), None
        return self._process

    def died(self) -> int | None:
        """The exit status, told once, if it has ended since it was started; sets when it is due."""
        if self._process is None or self._due is not None:
            return None
        status = self._process.poll()
        if status is not None:
            steady = time.monotonic() - self._started > STEADY_S
            self._wait = 0.0 if steady else min(max(2 * self._wait, 1.0), LONGEST_WAIT_S)
            self._due = time.monotonic() + self._wait
        return status

    @property
    def is_due(self) -> bool:
        """Whether it is time to start it again."""
        return self._due is not None and time.monotonic() >= self._due

    @property
    def wait(self) -> float:
        """Seconds from its end to its next start."""
        return self._wait

    def end(self) -> None:
        """Ends it, in good order if it does so in time."""
        if self._process is not None and self._process.poll() is None:
            end_processes([psutil.Process(self._process.pid)], self.end_seconds)
            self._process.wait()

    def last_words(self, lines: int = 5) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        text = self.log.read_bytes()[-4000:].decode(errors="replace")
        return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def marked(home: Path) -> dict[psutil.Process, dict[str, str]]:
    """The processes of a home, this one excepted, with their environments."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(MARK) == str(home) and process.pid != os.getpid():
                found[process] = environment
    return found


def living_flow_runs(home: Path) -> set[str]:
    """IDs of the flow runs that processes of a home work on."""
    return {known[FLOW_RUN] for known in marked(home).values() if FLOW_RUN in known}


def end_processes(processes: list[psutil.Process], seconds: float) -> None:
    """Ends processes: those that have not ended after so many seconds are killed."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate() if seconds else process.kill()
    _, alive = psutil.wait_procs(processes, timeout=seconds or 5.0)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5.0)


def end_flow_runs(home: Path, seconds: float) -> None:
    """Ends the processes of flow runs, which say so to the server if they do it in time."""
    end_processes(
        [process for process, known in marked(home).items() if FLOW_RUN in known], seconds
    )


def end_leftovers(home: Path) -> int:
    """Ends what a killed supervisor left behind; returns how many processes that were."""
    left = list(marked(home))
    end_processes(left, 5.0)
    end_processes(list(marked(home)), 0.0)
    return len(left)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Makes Ctrl+C, SIGTERM and a closed terminal end what runs inside.

    Once: the end is not interrupted in turn.
    """
    ending = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # As nohup has it.
        ending.append(signal.SIGHUP)

    def stop(number: int, _: object) -> None:
        for ignored in ending:
            signal.signal(ignored, signal.SIG_IGN)
        sys.exit(128 + number)

    for caught in ending:
        signal.signal(caught, stop)
    yield
