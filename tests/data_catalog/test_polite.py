import asyncio
from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp import web

from data_catalog.byte_ranges import CONNECTIONS, RangeReader
from data_catalog.polite import share_requests
from data_catalog.profiles import NAMED_SOURCES, requests_at_once

FILE = bytes(range(256)) * 4096


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    yield
    share_requests(1)


async def most_at_once(files: int, expected: int, profile: str = "generic") -> int:
    """Reads files from a server that counts; returns how many requests it had at once."""
    under_way, most, enough = 0, 0, asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way >= expected:
            enough.set()
        await asyncio.wait_for(enough.wait(), 60)
        # One too many would come now.
        await asyncio.sleep(0.05)
        under_way -= 1
        part = FILE[request.http_range]
        span = f"bytes {request.http_range.start}-{request.http_range.stop - 1}/{len(FILE)}"
        return web.Response(status=206, body=part, headers={"Content-Range": span})

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            readers = [
                RangeReader(f"http://127.0.0.1:{port}/{n}", profile, session) for n in range(files)
            ]
            found = await asyncio.gather(
                *(reader.get_range_async("", start=0, end=4) for reader in readers)
            )
        assert found == [FILE[:4]] * files
    finally:
        await runner.cleanup()
    return most


@pytest.mark.parametrize(("processes", "expected"), [(1, 64), (16, 4), (1000, 1)])
def test_processes_share_what_a_source_is_asked_for_at_once(processes: int, expected: int) -> None:
    share_requests(processes)
    assert asyncio.run(most_at_once(96, expected)) == expected


def test_a_profile_says_how_much_its_catalogue_is_asked_for() -> None:
    expected = requests_at_once("earth-search")
    assert asyncio.run(most_at_once(96, expected, "earth-search")) == expected
    assert all(1 <= requests_at_once(profile) <= CONNECTIONS for profile in NAMED_SOURCES)
