"""Streaming: training on rows that need not fit in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from rshash import distributed
from rshash.errors import FeatureError, TrainingError

POOL_BYTES = 1 << 29
"""Most of the arrays that is in memory at once for training, twice while reading ahead."""

RUN_ROWS = 512
"""Most rows that are read together: about a megabyte of features."""

RUNS_PER_POOL = 16
"""At least so many where rows are long, so that a batch holds tiles from far apart."""

BLOCK_ROWS = 8192
_BLOCK_VALUES = 1 << 24

Transform = Callable[[NDArray[Any]], NDArray[np.float32]]
T = TypeVar("T")
R = TypeVar("R")


class Rows(Protocol):
    """Rows (n, d) that are read by slices: an array, a memory map or a `FeatureFile`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """The rows of a slice without step."""


class FeatureFile:
    """Rows of features on disk, in an .npy file of float16 or float32 that any numpy reads.

    Reads copy what they are asked for: unlike those of a memory map, the file's pages never count
    as the process's memory.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: DTypeLike, offset: int) -> None:
        self.path = path
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._offset = offset
        self._file = path.open("rb", buffering=0)

    @classmethod
    def create(cls, path: Path, shape: tuple[int, int], dtype: DTypeLike) -> FeatureWriter:
        """Begins a file of a shape (n, d), which appears once all its rows are written."""
        return FeatureWriter(Path(path), shape, np.dtype(dtype))

    @classmethod
    def open(cls, path: Path) -> FeatureFile:
        """Opens a file that `create` or `numpy.save` wrote.

        Raises:
            FeatureError: It holds no rows of float16 or float32, or is shorter than it says.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                read_header = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, columns_first, dtype = read_header(file)
                offset = file.tell()
                size = file.seek(0, os.SEEK_END) - offset
        except (OSError, ValueError) as error:
            raise FeatureError(f"{path} cannot be read as an .npy file: {error}.") from error
        if len(shape) != 2 or columns_first or dtype not in (np.float16, np.float32):
            raise FeatureError(
                f"{path} should hold rows (n, d) of float16 or float32, "
                f"but holds {dtype} of shape {shape}{' by columns' if columns_first else ''}."
            )
        expected = shape[0] * shape[1] * dtype.itemsize
        if size != expected:
            raise FeatureError(
                f"{path} should hold {expected:,} bytes of rows, but holds {size:,}: "
                "it is cut off or damaged, so write it again."
            )
        return cls(path, shape, dtype, offset)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"Rows are read without step, but found {rows}.")
        found = np.empty((max(0, stop - start), self.shape[1]), self.dtype)
        buffer = found.reshape(-1).view(np.uint8).data
        position = self._offset + start * self.shape[1] * self.dtype.itemsize
        while buffer:
            read = os.preadv(self._file.fileno(), [buffer], position)
            if not read:
                raise FeatureError(f"{self.path} became shorter while it was read.")
            buffer, position = buffer[read:], position + read
        return found

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class FeatureWriter:
    """Writes a `FeatureFile` row by row; a context, which removes an unfinished file on errors."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        if dtype not in (np.float16, np.float32):
            raise FeatureError(f"Features are float16 or float32, but {dtype} is asked for.")
        self._path, self._shape, self._dtype = path, shape, dtype
        self._part = path.with_name(path.name + ".part")
        self._file = self._part.open("wb")
        self._written = 0
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, rows: NDArray[Any]) -> None:
        """Writes the next rows (m, d).

        Raises:
            FeatureError: They have another length than the file's, or are too many.
        """
        if rows.ndim != 2 or rows.shape[1] != self._shape[1]:
            raise FeatureError(
                f"Rows of shape (m, {self._shape[1]}) are expected, but found {rows.shape}."
            )
        self._written += len(rows)
        if self._written > self._shape[0]:
            raise FeatureError(f"{self._path} holds {self._shape[0]} rows, but got more.")
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())

    def close(self) -> None:
        """Puts the file in its place.

        Raises:
            FeatureError: Rows are missing.
            OSError: The disk is full, say.
        """
        if self._written != self._shape[0]:
            self._discard()
            raise FeatureError(
                f"{self._path} should hold {self._shape[0]} rows, but got {self._written}."
            )
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError:
            self._discard()
            raise
        self._part.replace(self._path)

    def _discard(self) -> None:
        # On a full disk there is no room for what is still in memory either.
        with suppress(OSError):
            self._file.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()


def blocks(rows: Rows, size: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Consecutive blocks of rows, each with the number of its first row; fewer of long rows."""
    size = size or _block_rows(rows.shape[-1])
    for start in range(0, rows.shape[0], size):
        yield start, rows[start : min(start + size, rows.shape[0])]


def _block_rows(width: int) -> int:
    return max(1, min(BLOCK_ROWS, _BLOCK_VALUES // max(1, width)))


class TileStream:
    """Batches of the same tiles' rows from several arrays, shuffled by (seed, epoch) alone.

    Where the arrays have more rows than a pool holds, runs of rows are read in random order into
    a pool, shuffled within it, and the next pool is read behind the training. Otherwise they are
    read once, kept on the device and shuffled as a whole. Every row that is not left out comes once
    an epoch. Batches of a pool differ by one row at most, so no batch is tiny. Of several
    processes that train together each gets its share of every batch: one row at the least.
    """

    def __init__(
        self,
        arrays: Sequence[Rows],
        batch_size: int,
        *,
        seed: int,
        device: torch.device,
        transforms: Sequence[Transform | None] = (),
        pool_bytes: int = POOL_BYTES,
        left_out: NDArray[np.int64] | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """Describes a stream; arrays that fit in a pool are read here.

        Args:
            arrays: Rows (n, d_s) of the same n tiles.
            batch_size: Most tiles in a batch, over all processes.
            seed: Seed of the order.
            device: Where batches are given.
            transforms: For each array what is done to rows (m, d_s) as they are read, or None;
                without it nothing is.
            pool_bytes: Size of a pool, which holds a batch at the least.
            left_out: Row numbers that epochs leave out.
            precision: Of what is given and kept.

        Raises:
            TrainingError: The arrays differ in their number of rows, or there are more processes
                than tiles in a batch.
        """
        self.n_tiles = arrays[0].shape[0]
        self._arrays = list(arrays)
        self._batch_size, self._seed, self._device = batch_size, seed, device
        self._precision = precision
        self._transforms = list(transforms) or [None] * len(arrays)
        self._check_rows()
        self._included = np.arange(self.n_tiles)
        if left_out is not None:
            self._included = np.delete(self._included, left_out)
        row_bytes = 4 * sum(self._width(array) for array in range(len(arrays)))
        pool_rows = max(batch_size, pool_bytes // row_bytes)
        run_rows = max(1, min(RUN_ROWS, pool_rows // RUNS_PER_POOL))
        # Of one length: a short run that is left over could be alone in a pool.
        runs = -(-len(self._included) // run_rows)
        self._bounds = np.arange(runs + 1) * len(self._included) // runs
        self._run_starts = np.append(self._included[self._bounds[:-1]], self.n_tiles)
        self._run_starts[0] = 0
        in_memory = self.n_tiles <= pool_rows
        self._pool_count = 1 if in_memory else -(-runs // (pool_rows // run_rows))
        self._check_shares()
        self._kept: list[Tensor] | None = None
        if in_memory:
            self._kept = [self._read(i, np.arange(self.n_tiles)) for i in range(len(arrays))]

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Batches of one epoch.

        Yields:
            Row numbers, int64 (b,), and for each array values (b, d_s).
        """
        if self._kept is None:
            return self._streamed(epoch)
        return self._from_memory(epoch, self._kept)

    def in_order(self, array: int = 0) -> Iterator[Tensor]:
        """One array's rows from first to last, values (m, d_s), each process getting all."""
        if self._kept is not None:
            yield from self._kept[array].split(BLOCK_ROWS)
            return
        size = _block_rows(self._width(array))
        rows = np.split(np.arange(self.n_tiles), range(size, self.n_tiles, size))
        yield from _read_ahead(lambda block: self._read(array, block), rows)

    def _from_memory(self, epoch: int, kept: list[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        order = self._random(epoch).permutation(self._included)
        for rows in self._batches(order):
            chosen = torch.from_numpy(rows).to(self._device)
            yield chosen, [tensor.index_select(0, chosen) for tensor in kept]

    def _streamed(self, epoch: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        for order, sizes, tensors in _read_ahead(self._read_pool, list(self._pools(epoch))):
            rows = torch.from_numpy(order).to(self._device)
            parts = [tensor.split(sizes) for tensor in (rows, *tensors)]
            for chosen, *values in zip(*parts, strict=True):
                yield chosen, values

    def _pools(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Row numbers of each pool in random order."""
        random = self._random(epoch)
        bounds = self._bounds
        runs = random.permutation(len(bounds) - 1)
        for chosen in np.array_split(runs, self._pool_count):
            rows = [self._included[bounds[run] : bounds[run + 1]] for run in chosen]
            yield random.permutation(np.concatenate(rows))

    def _batches(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """This process's share of each batch."""
        share, shares = distributed.rank(), distributed.world_size()
        batches = np.array_split(order, -(-len(order) // self._batch_size))
        return [batch[share::shares] for batch in batches]

    def _read_pool(
        self, pool: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[int], list[Tensor]]:
        batches = self._batches(pool)
        order = np.concatenate(batches)
        tensors = [self._read(array, order) for array in range(len(self._arrays))]
        return order, [len(batch) for batch in batches], tensors

    def _read(self, array: int, order: NDArray[np.int64]) -> Tensor:
        """Rows of one array in the order given, transformed, read run by run."""
        rows, transform = self._arrays[array], self._transforms[array]
        positions = np.argsort(order)
        ascending = order[positions]
        found: NDArray[np.float32] | None = None
        for run in np.unique(np.searchsorted(self._run_starts, order, side="right") - 1):
            start, stop = self._run_starts[run : run + 2].tolist()
            first, last = np.searchsorted(ascending, [start, stop])
            values = rows[start:stop][ascending[first:last] - start]
            values = values if transform is None else transform(values)
            if found is None:
                found = np.empty((len(order), values.shape[1]), np.float32)
            found[positions[first:last]] = values
        assert found is not None
        return torch.from_numpy(found).to(self._device, self._precision)

    def _random(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, epoch])

    def _width(self, array: int) -> int:
        """Length of an array's rows as batches give them."""
        rows, transform = self._arrays[array], self._transforms[array]
        return rows.shape[1] if transform is None else transform(rows[:1]).shape[1]

    def _check_rows(self) -> None:
        if any(array.shape[0] != self.n_tiles for array in self._arrays):
            raise TrainingError(
                "All sources must describe the same tiles, "
                f"but they have {[array.shape[0] for array in self._arrays]} rows."
            )

    def _check_shares(self) -> None:
        count, size = len(self._included), self._batch_size
        smallest = count // max(1, -(-count // size))
        if self._pool_count > 1:
            runs = len(self._bounds) - 1
            pool = (runs // self._pool_count) * int(np.diff(self._bounds).min())
            # A pool of one tile more than a batch gives two halves.
            smallest = min(pool, (size + 1) // 2)
        if smallest < distributed.world_size():
            raise TrainingError(
                f"Batches of {smallest} tiles cannot be shared by {distributed.world_size()} "
                "processes: train with fewer processes or larger batches."
            )


def _read_ahead(read: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What is read of each item, the next one being read while this one is used."""
    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(read, items[0])
        for item in items[1:]:
            found = upcoming.result()
            upcoming = reader.submit(read, item)
            yield found
        yield upcoming.result()
