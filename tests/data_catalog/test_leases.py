"""One night of a catalogue in a bucket at a time, and after a night was killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_catalog.catalogue import Catalogue
from data_catalog.leases import LEASE, LeasedError, leased
from data_catalog.object_store import BucketStore
from data_catalog.verification import verify

HOLDER = """
import sys, time
from data_catalog.leases import leased
with leased(sys.argv[1], float(sys.argv[2])):
    print("leased", flush=True)
    time.sleep(600)
"""


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def address(bucket: str) -> str:
    return f"s3://{bucket}/catalogue"


def test_a_second_night_is_told_who_runs_the_first(address: str) -> None:
    with leased(address):
        catalogue = Catalogue.create(address)
        with pytest.raises(LeasedError, match=rf"process {os.getpid()} on .*, since 20"):
            leased(address).__enter__()
    with leased(address):
        pass
    assert not catalogue.store.exists(LEASE)
    assert verify(catalogue) == []


def test_a_killed_night_keeps_nobody_out_for_long(address: str) -> None:
    lease = 15.0
    command = [sys.executable, "-c", HOLDER, address, str(lease)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "leased\n"
        store = BucketStore(address)
        first = store.read_json(LEASE)
        wait_until(lambda: store.read_json(LEASE) != first)
        with pytest.raises(LeasedError, match=f"process {holder.pid} "):
            leased(address).__enter__()
        holder.send_signal(signal.SIGKILL)

    def free() -> bool:
        try:
            with leased(address):
                return True
        except LeasedError:
            return False

    wait_until(free)


def test_of_nights_that_begin_at_once_one_runs(address: str) -> None:
    inside, refused, ready = [], [], threading.Barrier(4)

    def night() -> None:
        ready.wait()
        try:
            with leased(address):
                inside.append(1)
                while len(inside) + len(refused) < 4:
                    time.sleep(0.01)
        except LeasedError:
            refused.append(1)

    threads = [threading.Thread(target=night) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(inside), len(refused)) == (1, 3)


def test_a_night_whose_lease_is_lost_is_told(address: str) -> None:
    with leased(address, seconds=1.0) as lease:
        lease.check()
        store = BucketStore(address)
        theirs = {
            "id": "theirs",
            "machine": "elsewhere",
            "process": 7,
            "since": "2026-01-01T00:00:00Z",
            "until": "2100-01-01T00:00:00+00:00",
        }
        store.update_json(LEASE, lambda _: theirs)
        deadline = time.monotonic() + 60
        while lease.lost is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(LeasedError, match=r"could not renew .*process 7 on elsewhere"):
            lease.check()
    # It is another's by now.
    assert store.read_json(LEASE) == theirs


def test_a_folder_needs_no_lease(tmp_path: Path) -> None:
    with leased(str(tmp_path)) as lease:
        lease.check()
        assert list(tmp_path.iterdir()) == []
