"""Similar tiles for many clients at once: what is asked together is searched together."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
from cachetools import LRUCache

from data_catalog.service.answers import Rows, similar_rows
from data_catalog.service.metrics import Metrics
from data_catalog.service.parameters import Search
from data_catalog.service.snapshots import Snapshot
from rshash.codes import Words

LARGEST_BATCH = 64
THREADS = 2
"""For batches, of which one runs at a time, and for queries of other kinds."""

REMEMBERED_ROWS = 500_000


class Searches:
    """Answers searches, from memory where they were asked before in the same version."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._remembered: LRUCache[Any, Rows] = LRUCache(
            REMEMBERED_ROWS, getsizeof=lambda rows: 1 + len(rows)
        )
        self._waiting: defaultdict[Any, dict[str, asyncio.Future[Rows]]] = defaultdict(dict)
        # The next batch fills while one is searched.
        self._one_batch = asyncio.Lock()
        # Of each thread: threads that share a processor with others wait for the last of them.
        self._threads = ThreadPoolExecutor(
            THREADS, "search", initializer=faiss.omp_set_num_threads, initargs=(1,)
        )
        self._running: set[asyncio.Task[None]] = set()

    async def similar(self, snapshot: Snapshot, tile_id: str, search: Search) -> Rows:
        """The tiles most like one.

        Raises:
            QueryError: The tile has no code.
        """
        key = (snapshot.version, tile_id, search)
        if (known := self._remembered.get(key)) is not None:
            self._metrics.cache_hits.inc()
            return known
        batch = (snapshot, search)
        waiting = self._waiting[batch]
        if tile_id not in waiting:
            waiting[tile_id] = asyncio.get_running_loop().create_future()
            if len(waiting) == 1:
                self._start(batch)
        # Shielded: that one client leaves must not end the search of another.
        rows = await asyncio.shield(waiting[tile_id])
        self._remembered[key] = rows
        return rows

    async def like_examples(
        self, snapshot: Snapshot, like: list[str], unlike: list[str], search: Search
    ) -> Rows:
        """More like these tiles, less like those."""

        def answer() -> Rows:
            found = snapshot.codes.search.like_examples(
                like, unlike, search.k, radius=search.radius, filters=search.filters()
            )
            return similar_rows(snapshot, found)[0]

        return await asyncio.get_running_loop().run_in_executor(self._threads, answer)

    async def like_codes(self, snapshot: Snapshot, codes: Words, search: Search) -> Rows:
        """The tiles nearest to a code, uint64 ``(1, words)``."""

        def answer() -> Rows:
            found = snapshot.codes.search.like_codes(
                codes, search.k, radius=search.radius, filters=search.filters()
            )
            return similar_rows(snapshot, found)[0]

        return await asyncio.get_running_loop().run_in_executor(self._threads, answer)

    def _start(self, batch: Any) -> None:
        task = asyncio.create_task(self._run(batch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, batch: Any) -> None:
        snapshot, search = batch
        loop = asyncio.get_running_loop()
        async with self._one_batch:
            waiting = self._waiting.pop(batch)
            tile_ids = list(waiting)
            for start in range(0, len(tile_ids), LARGEST_BATCH):
                part = tile_ids[start : start + LARGEST_BATCH]
                try:
                    found = await loop.run_in_executor(
                        self._threads, _search, snapshot, part, search
                    )
                except Exception as error:
                    for tile_id in part:
                        waiting[tile_id].set_exception(error)
                        waiting[tile_id].exception()
                    continue
                for tile_id in part:
                    waiting[tile_id].set_result(found[tile_id])


def _search(snapshot: Snapshot, tile_ids: list[str], search: Search) -> dict[str, Rows]:
    found = snapshot.codes.search.like_tiles(
        tile_ids, search.k, radius=search.radius, filters=search.filters()
    )
    return dict(zip(tile_ids, similar_rows(snapshot, found), strict=True))
