"""What is remembered of rasters: every block once, no more than fits, and no failure."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fault_server import Fault, FaultServer, fault_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.windows import Window
from tiny_rasters import numbers, run, serve, write

from data_catalog import byte_ranges, rasters
from data_catalog.errors import ReadError
from data_catalog.rasters import Rasters

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultServer]:
    with fault_server(tmp_path_factory.getbasetemp()) as running:
        yield running


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.tif"
    return write(path, numbers("uint16", (500, 700)), compress="deflate", predictor=2)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_windows_one_after_another_are_what_rasterio_reads(large: Path, data: Any) -> None:
    corners = st.tuples(st.integers(0, 699), st.integers(0, 499))
    windows = []
    for x, y in data.draw(st.lists(corners, min_size=1, max_size=5)):
        wide, high = data.draw(st.integers(1, 700 - x)), data.draw(st.integers(1, 500 - y))
        windows.append(Window(x, y, wide, high))
    with rasterio.open(large) as file:
        values = file.read(1)

    async def job(opened: Rasters) -> list[np.ndarray]:
        file = await opened.open(str(large), "generic")
        return list(await asyncio.gather(*(file.read(window) for window in windows)))

    for window, found in zip(windows, run(job), strict=True):
        np.testing.assert_array_equal(found, values[window.toslices()])


def asked_bytes(server: FaultServer) -> Counter[int]:
    """How often every byte after the header was asked for."""
    counts: Counter[int] = Counter()
    for request in server.requests():
        first, last = map(int, request.bytes.removeprefix("bytes=").split("-"))
        counts.update(range(max(first, rasters.HEADER_BYTES), last + 1))
    return counts


@pytest.mark.parametrize("together", [False, True])
def test_no_block_is_asked_for_twice(
    large: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    monkeypatch.setattr(byte_ranges, "GAP_BYTES", 0)  # else what lies between is asked for too
    href = serve(server, large)
    windows = [Window(x, y, 150, 130) for y in (0, 100, 200) for x in (0, 130, 300)]

    async def job(opened: Rasters) -> None:
        file = await opened.open(href, "generic")
        if together:
            await asyncio.gather(*(file.read(window) for window in windows * 2))
        else:
            for window in windows * 2:
                await file.read(window)

    run(job)
    counts = asked_bytes(server)
    assert len(counts) > 200_000
    assert max(counts.values()) == 1


def test_the_cache_is_bounded_and_reading_right_in_spite_of_it(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = 64 * 48 * 2
    monkeypatch.setattr(rasters, "CACHE_BYTES", 5 * block)
    with rasterio.open(large) as expected:
        values = expected.read(1)
    windows = [Window(x, y, 150, 130) for y in (0, 100, 350) for x in (0, 130, 300, 550)]

    async def job(opened: Rasters) -> None:
        file = await opened.open(str(large), "generic")
        found = await asyncio.gather(*(file.read(window) for window in windows))
        for window in windows:
            found.append(await file.read(window))
            assert opened._blocks._bytes <= 5 * block
        for window, pixels in zip(windows * 2, found, strict=True):
            np.testing.assert_array_equal(pixels, values[window.toslices()])
        kept = [future.result() for future in opened._blocks._blocks.values()]
        assert 0 < opened._blocks._bytes == sum(one.nbytes for one in kept) <= 5 * block
        opened.forget(str(large), "generic")
        assert (opened._blocks._bytes, len(opened._blocks._blocks)) == (0, 0)

    run(job)


@pytest.mark.parametrize("after", [0, 1], ids=["opening", "reading"])
def test_a_failure_is_not_remembered(large: Path, server: FaultServer, after: int) -> None:
    href = serve(server, large, Fault("*", "status", at_most=None, after=after))
    window = Window(300, 300, 100, 100)

    async def job(opened: Rasters) -> np.ndarray:
        async def once() -> np.ndarray:
            return await (await opened.open(href, "generic")).read(window)

        failed = await asyncio.gather(*(once() for _ in range(3)), return_exceptions=True)
        assert all(isinstance(one, ReadError) and "503" in str(one) for one in failed)
        assert opened._blocks._bytes == 0
        await asyncio.to_thread(server.misbehave)
        return await once()

    with rasterio.open(large) as file:
        np.testing.assert_array_equal(run(job), file.read(1, window=window))
