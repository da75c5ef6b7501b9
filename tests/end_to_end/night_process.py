"""Nights in processes of their own that may be killed; forked, so that each starts at once.

Run as a script it is what they are forked from: a night for every line of its input. Backfills can
be run likewise.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

WRITES = ("os.mkdir", "os.rename", "os.remove", "os.truncate", "shutil.")


@dataclass(frozen=True)
class Disturbance:
    """What happens to a night at a moment.

    Attributes:
        stage: What it is at, as ``stage_of`` tells.
        moment: Number of the stage's moment, from 1.
        fill: File that takes all room that is left on its disk; none, and the night is killed.
    """

    stage: str
    moment: int
    fill: str | None = None


@dataclass(frozen=True)
class Ended:
    """How a night ended.

    Attributes:
        status: As the shell has it: 0, 1 if an error ended it, -9 if it was killed.
        moments: How many moments every stage had; empty if it was killed.
    """

    status: int
    moments: dict[str, int]


class NightProcesses:
    """Starts nights. Make one with ``night_processes``."""

    def __init__(self, commands: IO[str], answers: IO[str], folder: Path) -> None:
        self._commands, self._answers, self._folder = commands, answers, folder

    def begin(
        self,
        name: str,
        parameters: dict[str, Any],
        disturbance: Disturbance | None = None,
        flow: str = "nightly",
    ) -> int:
        """Starts a night, as a flow run of this name; returns the ID of its process."""
        happens = asdict(disturbance) if disturbance else None
        request = {"name": name, "parameters": parameters, "happens": happens, "flow": flow}
        self._commands.write(json.dumps(request) + "\n")
        self._commands.flush()
        return int(self._answers.readline())

    def wait(self) -> Ended:
        """Waits until the night that was started last has ended."""
        return Ended(**json.loads(self._answers.readline()))

    def run(
        self,
        name: str,
        parameters: dict[str, Any],
        disturbance: Disturbance | None = None,
        flow: str = "nightly",
    ) -> Ended:
        """A night from its beginning to its end."""
        self.begin(name, parameters, disturbance, flow)
        return self.wait()

    def said(self, name: str) -> str:
        """What a night wrote to its terminal."""
        return (self._folder / f"{name}.txt").read_text()


@contextmanager
def night_processes(
    folder: Path, environment: dict[str, str] | None = None
) -> Iterator[NightProcesses]:
    """Lets nights run that report to the Prefect server that an environment names."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdin and parent.stdout
        yield NightProcesses(parent.stdin, parent.stdout, folder)
        parent.stdin.close()


def stage_of(event: str, arguments: tuple[Any, ...], root: str) -> str | None:
    """What a night is at when it touches a file of its catalogue, or connects to a server."""
    if event == "socket.connect":
        return "asking"
    if not event.startswith(("open", *WRITES)):
        return None
    path = next((str(a) for a in arguments if isinstance(a, str | Path) and root in str(a)), None)
    if path is None:
        return None
    if "/.plans/" in path or "pixels.zarr" in path:
        return "reading"
    if "/codes-" in path:
        return "publishing codes"
    if "/.cache/encoded/" in path or "/.cache/features/" in path:
        return "encoding"
    writes = event != "open" or (isinstance(arguments[1], str) and "r" not in arguments[1])
    return "publishing segments" if "/tiles-" in path and writes else "looking"


def _night(folder: Path, name: str, parameters: dict[str, Any], happens: Any, flow: str) -> int:
    from flows.backfill import backfill
    from flows.nightly import nightly
    from flows.parameters import NightlyParameters
    from flows.quality_parameters import BackfillParameters

    moments: Counter[str] = Counter()

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        stage = stage_of(event, arguments, parameters["catalog"])
        if stage is not None:
            moments[stage] += 1
            if happens and (stage, moments[stage]) == (happens["stage"], happens["moment"]):
                if happens["fill"] is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                _fill(happens["fill"])

    sys.addaudithook(count)
    try:
        if flow == "backfill":
            backfill.with_options(flow_run_name=name)(BackfillParameters(**parameters))
        else:
            nightly.with_options(flow_run_name=name)(NightlyParameters(**parameters))
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        (folder / f"{name}.json").write_text(json.dumps(moments))
    return 0


def _fill(path: str) -> None:
    with suppress(OSError), Path(path).open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _serve(folder: Path) -> None:
    import torchgeo.models  # noqa: F401

    import flows.nightly  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        name = request["name"]
        process = os.fork()
        if process == 0:
            with (folder / f"{name}.txt").open("w") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            status = 1
            try:
                status = _night(folder, **request)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(process, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        counts = folder / f"{name}.json"
        moments = json.loads(counts.read_text()) if counts.exists() else {}
        print(json.dumps({"status": status, "moments": moments}), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
