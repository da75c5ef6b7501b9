"""Ports for servers that are told theirs before they start."""

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """A port below those that connections are given: none takes it before the server does."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
