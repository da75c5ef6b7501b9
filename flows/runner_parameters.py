"""Where the tasks of a flow are worked on."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from flows.parameter_base import Parameters
from rshash.errors import RshashError

_ADDRESSES = {
    "dask": (re.compile(r"(?:tcp|tls|ws|wss|ucx)://\S+:\d+"), "tcp://scheduler:8786"),
    "ray": (re.compile(r"(?:ray://\S+:\d+|auto|[\w.-]+:\d+)"), "ray://head:10001"),
}


class RunnerParameters(Parameters):
    """Where the tasks of a flow are worked on."""

    box_title = "Runner"
    box_key = "running"

    runner: Literal["threads", "processes", "dask", "ray"] = Field(
        "threads",
        title="Runner",
        description="threads or processes of this machine, or a cluster: dask and ray start one on "
        "this machine where no address is given. What comes out is the same.",
    )
    runner_address: str | None = Field(
        None,
        title="Address of the cluster",
        description="Of a Dask scheduler, such as tcp://scheduler:8786, or of a Ray cluster, such "
        "as ray://head:10001. Its machines need rshash, and the catalogue under the same path.",
    )

    @model_validator(mode="after")
    def _address_is_of_the_runner(self) -> Self:
        if self.runner_address is None:
            return self
        if self.runner not in _ADDRESSES:
            raise RshashError(
                f"--runner-address is not for --runner {self.runner}: leave it out, or give "
                "--runner dask or --runner ray."
            )
        form, example = _ADDRESSES[self.runner]
        if not form.fullmatch(self.runner_address):
            raise RshashError(
                f"--runner-address {self.runner_address} is no address of a {self.runner} "
                f"cluster: expected one such as {example}."
            )
        return self
