"""Encoding in parts: batches of observations that any process can encode, and the rows they give.

Both lie in the catalogue's ``.cache`` folder until their codes are published, and may be deleted
whenever nothing runs. A part is named by a hash of the observations that it was made from, so a run
that was cut off goes on with the parts that are done, and never takes one for another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog import stac
from data_catalog.catalogue import Catalogue
from data_catalog.code_schema import code_table_schema
from data_catalog.encoding import encode_observations
from data_catalog.errors import CatalogueError
from data_catalog.models import load_model
from data_catalog.segments import BLOCK_ROWS, INDEX_SCHEMA
from rshash.model import Model

BATCH_TILES = 512
"""Tiles of eight whole blocks: bookkeeping costs milliseconds a batch, encoding many seconds."""

KEEP_DAYS = 7
"""Parts that no run came back for are removed after this time."""

_SCHEMA = pa.schema(
    [
        pa.field("segment_id", pa.string()),
        *map(
            INDEX_SCHEMA.field,
            ["tile_id", "row", "datetime", "source_scenes", "clear_fraction"],
        ),
    ]
)


@dataclass(frozen=True)
class EncodingPlan:
    """Observations to be encoded, saved in batches of whole blocks.

    Attributes:
        path: The file that it is saved in, a row group for each batch.
        catalog: Folder or address of the catalogue.
        model_id: The model that makes the codes.
        parts: Names of the files of codes, one for each batch.
        tiles: Number of observations in each batch.
    """

    path: Path
    catalog: str
    model_id: str
    parts: tuple[str, ...]
    tiles: tuple[int, ...]

    @property
    def remaining(self) -> list[int]:
        """Numbers of the batches that are not encoded yet."""
        return [number for number in range(len(self.parts)) if not self.part(number).exists()]

    def part(self, number: int) -> Path:
        """The file that holds a batch's codes once they are made."""
        return self.path.parent / self.parts[number]

    @classmethod
    def load(cls, path: Path | str) -> EncodingPlan:
        """Loads a saved plan.

        Raises:
            CatalogueError: There is none.
        """
        try:
            said = json.loads(pq.read_schema(path).metadata[b"plan"])
        except FileNotFoundError:
            raise CatalogueError(
                f"{path} is gone: its codes are published, or its cache was deleted; run "
                "`rshash rehash` again."
            ) from None
        return cls(
            Path(path),
            said["catalog"],
            said["model_id"],
            tuple(said["parts"]),
            tuple(said["tiles"]),
        )


@contextmanager
def only_encoding(catalogue: Catalogue, model_id: str, *, wait: bool = True) -> Iterator[None]:
    """Keeps other runs of this machine from making codes by a model while one does.

    What one of them publishes and discards would be missing to the other.

    Raises:
        BlockingIOError: One of them is at it, and this one is not to wait.
    """
    with stac.locked(catalogue.root / ".cache" / "encoded" / f".{model_id}.lock", wait=wait):
        yield


def plan_encoding(catalogue: Catalogue, model_id: str, observations: pd.DataFrame) -> EncodingPlan:
    """Saves what is to be encoded, in batches.

    Args:
        catalogue: Holds the observations' segments.
        model_id: The model that is to encode them.
        observations: As ``current_observations`` returns them, of the model's primary sensor.
    """
    folder = catalogue.root / ".cache" / "encoded" / model_id
    with stac.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    stac.remove_unused(folder, KEEP_DAYS)
    rows = pd.DataFrame(observations[_SCHEMA.names]).sort_values(
        ["segment_id", "row"], ignore_index=True
    )
    batches = list(_batches(rows))
    parts = [f"{_fingerprint(rows.iloc[batch])}.codes.parquet" for batch in batches]
    tiles = [batch.stop - batch.start for batch in batches]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
    path = folder / f"{name}.plan.parquet"
    said = {"catalog": str(catalogue.store), "model_id": model_id, "parts": parts, "tiles": tiles}
    schema = _SCHEMA.with_metadata({"plan": json.dumps(said)})
    table = pa.Table.from_pandas(rows, schema, preserve_index=False)
    table = table.replace_schema_metadata(schema.metadata)
    with (
        stac.writing(folder),
        stac.replacing(path) as staged,
        pq.ParquetWriter(staged, schema) as writer,
    ):
        for batch, length in zip(batches, tiles, strict=True):
            writer.write_table(table.slice(batch.start, length), length)
    return EncodingPlan.load(path)


def encode_batch(plan_path: Path | str, number: int) -> int:
    """Encodes one batch of a saved plan; one that is done is left as it is.

    Returns:
        Number of observations in the batch.

    Raises:
        CatalogueError: There is no such plan, a tile cannot be read, or the disk is full.
    """
    plan = EncodingPlan.load(plan_path)
    part = plan.part(number)
    if not part.exists():
        catalogue = Catalogue.open(plan.catalog)
        observations = pq.ParquetFile(plan_path).read_row_group(number).to_pandas()
        model = _model(plan.catalog, plan.model_id)
        rows = encode_observations(catalogue, model, observations)
        known = code_table_schema(model.bits)
        table = pa.Table.from_pandas(rows, pa.schema(map(known.field, rows.columns)))
        with stac.writing(part), stac.replacing(part) as staged:
            pq.write_table(table, staged)
    return plan.tiles[number]


def encoded_rows(plan: EncodingPlan) -> pd.DataFrame:
    """The rows of all batches of a plan, as ``encode_observations`` makes them.

    Raises:
        CatalogueError: Some are not encoded.
    """
    try:
        parts = [pq.read_table(plan.part(number)) for number in range(len(plan.parts))]
    except FileNotFoundError:
        raise CatalogueError(
            f"{len(plan.remaining)} of {len(plan.parts)} batches of tiles are not encoded by "
            f"{plan.model_id}: run `rshash rehash` again, which goes on with those."
        ) from None
    return pa.concat_tables(parts).to_pandas() if parts else pd.DataFrame({"tile_id": []})


def discard(plan: EncodingPlan) -> None:
    """Removes a plan whose codes are published, and its parts."""
    for name in (*plan.parts, plan.path.name):
        (plan.path.parent / name).unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _model(catalog: str, model_id: str) -> Model:
    """A model, loaded once in a process: a published one never changes."""
    return load_model(Catalogue.open(catalog), model_id)


def _batches(rows: pd.DataFrame) -> Iterator[slice]:
    """Runs of whole blocks, which are shards, of BATCH_TILES tiles or a little more.

    Where a segment's blocks are full, the batches after one that has changed stay what they were.
    """
    if rows.empty:
        return
    window = rows["row"].to_numpy() // max(BATCH_TILES // BLOCK_ROWS * BLOCK_ROWS, BLOCK_ROWS)
    segment = rows["segment_id"].to_numpy()
    ends = np.flatnonzero((np.diff(window) != 0) | (segment[1:] != segment[:-1])) + 1
    start = 0
    for end in [*ends.tolist(), len(rows)]:
        if end - start >= BATCH_TILES // 2 or end == len(rows):
            yield slice(start, end)
            start = end


def _fingerprint(rows: pd.DataFrame) -> str:
    """A hash of observations: what a segment holds in a row never changes."""
    hashes = pd.util.hash_pandas_object(
        rows[["tile_id", "segment_id", "row"]], index=False
    ).to_numpy()
    return hashlib.sha256(hashes.tobytes()).hexdigest()[:20]
