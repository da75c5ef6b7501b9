from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rshash.errors import FeatureError, TrainingError
from rshash.streaming import FeatureFile, TileStream, blocks

CPU = torch.device("cpu")


def numbered(n: int, d: int = 2) -> np.ndarray:
    return np.arange(n * d, dtype=np.float32).reshape(n, d)


def stream(arrays, batch_size=100, seed=0, pool_rows=1024, **keywords) -> TileStream:
    pool_bytes = 4 * pool_rows * sum(array.shape[1] for array in arrays)
    return TileStream(arrays, batch_size, seed=seed, device=CPU, pool_bytes=pool_bytes, **keywords)


def order(tiles: TileStream, epoch: int) -> list[int]:
    return torch.cat([rows for rows, _ in tiles.epoch(epoch)]).tolist()


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 4000),
    batch_size=st.integers(1, 300),
    pool_rows=st.integers(1, 3000),
    epoch=st.integers(1, 5),
)
def test_every_row_comes_once_an_epoch(n, batch_size, pool_rows, epoch) -> None:
    first, second = numbered(n), numbered(n, 3)[::-1].copy()
    tiles = stream([first, second], batch_size, pool_rows=pool_rows)
    seen = []
    for rows, (a, b) in tiles.epoch(epoch):
        assert 1 <= len(rows) <= batch_size
        np.testing.assert_array_equal(a.numpy(), first[rows.numpy()])
        np.testing.assert_array_equal(b.numpy(), second[rows.numpy()])
        seen += rows.tolist()
    assert sorted(seen) == list(range(n))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 3000),
    share=st.floats(0, 1),
    batch_size=st.integers(1, 300),
    pool_rows=st.integers(1, 4000),
)
def test_rows_that_are_left_out_never_come_in_an_epoch(n, share, batch_size, pool_rows) -> None:
    array = numbered(n)
    left_out = np.random.default_rng(n).permutation(n)[: int(share * (n - 1))]
    tiles = stream([array], batch_size, pool_rows=pool_rows, left_out=left_out)
    seen = []
    for rows, (values,) in tiles.epoch(1):
        assert 1 <= len(rows) <= batch_size
        np.testing.assert_array_equal(values.numpy(), array[rows.numpy()])
        seen += rows.tolist()
    assert sorted(seen) == sorted(set(range(n)) - set(left_out.tolist()))
    np.testing.assert_array_equal(torch.cat(list(tiles.in_order())).numpy(), array)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 3000),
    held_out=st.integers(0, 500),
    batch_size=st.integers(2, 40),
    pool_rows=st.integers(1, 4000),
    processes=st.integers(2, 4),
)
def test_no_process_gets_an_empty_share(n, held_out, batch_size, pool_rows, processes) -> None:
    left_out = np.random.default_rng(n).permutation(n)[: min(held_out, n // 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rshash.distributed.world_size", lambda: processes)
        patch.setattr("rshash.distributed.rank", lambda: processes - 1)
        try:
            tiles = stream([numbered(n)], batch_size, pool_rows=pool_rows, left_out=left_out)
        except TrainingError:
            # Half a batch is enough for all, wherever a batch is.
            assert min(batch_size // 2, (n - len(left_out)) // 2) < processes
            return
        assert all(len(rows) for rows, _ in tiles.epoch(1))


@pytest.mark.parametrize("pool_rows", [1024, 1 << 16], ids=["streamed", "in memory"])
def test_the_order_depends_on_seed_and_epoch_alone(pool_rows: int) -> None:
    array = numbered(5000)
    tiles = stream([array], pool_rows=pool_rows)
    first = order(tiles, 1)
    assert order(tiles, 2) != first
    torch.manual_seed(9)
    assert order(tiles, 1) == first
    assert order(stream([array], pool_rows=pool_rows), 1) == first
    assert order(stream([array], seed=1, pool_rows=pool_rows), 1) != first


def test_no_pool_is_tiny() -> None:
    tiles = stream([numbered(1025)], batch_size=64)
    assert min(len(rows) for epoch in range(1, 9) for rows, _ in tiles.epoch(epoch)) > 40


def test_pools_mix_rows_from_far_apart() -> None:
    rows = np.array(order(stream([numbered(20_000)], pool_rows=4096), 1))
    batches = rows[: len(rows) // 100 * 100].reshape(-1, 100)
    assert (np.ptp(batches, axis=1) > 2000).all()


class Counted:
    """Rows that know how many of them were read and how many at most at once."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.read, self.largest = array, 0, 0
        self.shape = array.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        found = self.array[rows]
        self.read += len(found)
        self.largest = max(self.largest, len(found))
        return found


def test_memory_stays_bounded_by_two_pools() -> None:
    rows = Counted(numbered(20_000))
    tiles = stream([rows], pool_rows=2048)
    assert rows.read == 0
    given = 0
    for batch, _ in tiles.epoch(1):
        given += len(batch)
        assert rows.read - given <= 2 * 2048
    assert rows.read == 20_000
    assert rows.largest <= 512


def test_pools_of_long_rows_are_bounded_by_their_size() -> None:
    rows = Counted(numbered(2000, 1 << 12))
    size = 4 << 12
    tiles = TileStream([rows], 8, seed=0, device=CPU, pool_bytes=100 * size)
    given, spreads = 0, []
    for batch, _ in tiles.epoch(1):
        given += len(batch)
        spreads.append(int(np.ptp(batch.numpy())))
        assert rows.read - given <= 2 * 100
    assert given == 2000
    assert rows.largest <= 7
    assert min(spreads) > 200


def test_a_pool_is_as_large_as_what_the_rows_become() -> None:
    rows = Counted(numbered(5000, 64))
    narrowed = [lambda block: block[:, :1].astype(np.float32)]
    tiles = TileStream([rows], 100, seed=0, device=CPU, transforms=narrowed, pool_bytes=5000 * 4)
    read = rows.read
    order(tiles, 1), order(tiles, 2)
    assert rows.read == read


def test_small_arrays_are_read_once() -> None:
    rows = Counted(numbered(1000))
    tiles = stream([rows])
    order(tiles, 1), order(tiles, 2)
    assert rows.read == 1000


@pytest.mark.parametrize("pool_rows", [1024, 1 << 16], ids=["streamed", "in memory"])
def test_rows_in_order(pool_rows: int) -> None:
    array = numbered(20_000)
    tiles = stream([array[:, :1], array], pool_rows=pool_rows)
    np.testing.assert_array_equal(torch.cat(list(tiles.in_order(1))).numpy(), array)


@pytest.mark.parametrize("pool_rows", [1024, 1 << 16], ids=["streamed", "in memory"])
def test_rows_are_transformed_as_they_are_read_and_nan_passes(pool_rows: int) -> None:
    primary, secondary = numbered(3000).astype(np.float16), numbered(3000)
    secondary[::7] = np.nan
    tiles = stream(
        [primary, secondary],
        pool_rows=pool_rows,
        transforms=[None, lambda rows: np.concatenate([rows, 2 * rows], axis=1)],
    )
    for rows, (a, b) in tiles.epoch(1):
        assert a.dtype == b.dtype == torch.float32
        assert b.shape == (len(rows), 4)
        np.testing.assert_array_equal(b[:, 2:], 2 * b[:, :2])
        np.testing.assert_array_equal(b.isnan().all(dim=1), rows % 7 == 0)


def test_an_epoch_left_early_leaves_nothing_behind() -> None:
    tiles = stream([numbered(20_000)])
    epoch = tiles.epoch(1)
    next(epoch)
    epoch.close()
    assert sorted(order(tiles, 1)) == list(range(20_000))


def test_arrays_of_other_tiles_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"same tiles.*\[3, 4\] rows"):
        stream([numbered(3), numbered(4)])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_feature_file_is_an_npy_file(dtype: type, tmp_path: Path) -> None:
    array = numbered(1000, 5).astype(dtype)
    path = tmp_path / "features.npy"
    with FeatureFile.create(path, array.shape, dtype) as writer:
        for _, block in blocks(array, 300):
            assert not path.exists()
            writer.append(block)
    np.testing.assert_array_equal(np.load(path), array)
    np.save(tmp_path / "other.npy", array)
    for name in ("features.npy", "other.npy"):
        file = FeatureFile.open(tmp_path / name)
        assert file.shape == array.shape
        assert len(file) == 1000
        assert file.dtype == dtype
        for rows in (
            slice(0, 1000),
            slice(17, 900),
            slice(990, 2000),
            slice(5, 5),
            slice(-3, None),
        ):
            np.testing.assert_array_equal(file[rows], array[rows])
        assert file[:3].dtype == dtype
        file.close()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["features.npy", "other.npy"]


def test_files_that_hold_no_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with pytest.raises(FeatureError, match=r"a\.npy cannot be read"):
        FeatureFile.open(path)
    path.write_bytes(b"no array")
    with pytest.raises(FeatureError, match=r"a\.npy cannot be read"):
        FeatureFile.open(path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FeatureError, match=r"a\.npy .*object"):
        FeatureFile.open(path)
    for array in (np.zeros((3, 2)), np.zeros(3, "f4"), np.asfortranarray(numbered(3))):
        np.save(path, array)
        with pytest.raises(FeatureError, match=r"a\.npy should hold rows \(n, d\)"):
            FeatureFile.open(path)
    np.save(path, numbered(3))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FeatureError, match="should hold 24 bytes of rows, but holds 23"):
        FeatureFile.open(path)


def test_a_file_appears_only_with_all_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for rows, message in (
        (numbered(2), "should hold 3 rows, but got 2"),
        (numbered(4), "holds 3 rows, but got more"),
        (numbered(3, 3), r"shape \(m, 2\)"),
    ):
        writer = FeatureFile.create(path, (3, 2), np.float32)
        with pytest.raises(FeatureError, match=message), writer:
            writer.append(rows)
    with pytest.raises(FeatureError, match="float16 or float32"):
        FeatureFile.create(path, (3, 2), np.int32)
    assert not list(tmp_path.iterdir())
