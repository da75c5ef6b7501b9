from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published_world import SENSOR, index, random_codes, tiles

from data_catalog.code_tables import code_rows, write_code_table
from data_catalog.query_tables import CodeTables, _TableFile

IDS = sorted(tile.id for tile in tiles(40))


def test_a_look_up_reads_one_column_of_one_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "codes.parquet"
    rows = code_rows(index(tiles(40)), random_codes(40)).assign(model_id="a-model")
    write_code_table(path, rows, 64, SENSOR)
    pq.write_table(pq.read_table(path), path, row_group_size=8)
    read: list[tuple[int, str]] = []
    read_group = _TableFile.read_group

    def noted(self: _TableFile, group: int, column: str) -> pa.Array:
        read.append((group, column))
        return read_group(self, group, column)

    monkeypatch.setattr(_TableFile, "read_group", noted)
    tables = CodeTables([path])
    assert (len(tables), read) == (40, [])
    assert [tables.row(IDS[row]) for row in (19, 16, 23)] == [19, 16, 23]
    assert tables.row("UTM1920-32N_0178_2999") is None
    assert read[0] == (2, "tile_id") and {column for _, column in read} == {"tile_id"}
    assert len(read) == 2
    tables.take(np.array([19]), ["datetime"])
    assert read[2:] == [(2, "datetime")]
