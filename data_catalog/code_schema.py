"""What code tables are called, and their columns."""

from __future__ import annotations

import pyarrow as pa

from rshash.codes import word_count


def collection_of(model_id: str) -> str:
    """ID of the collection that holds a model's code tables."""
    return f"codes-{model_id}"


def code_columns(bits: int) -> list[str]:
    """Names of the columns that hold codes, one for every 64 bits."""
    return [f"code_{i}" for i in range(word_count(bits))]


def code_table_schema(bits: int) -> pa.Schema:
    """Columns of a code table; ``geometry`` and ``bbox`` follow them."""
    return pa.schema(
        [
            ("tile_id", pa.string()),
            ("datetime", pa.timestamp("us", "UTC")),
            *((name, pa.uint64()) for name in code_columns(bits)),
            ("code_source", pa.string()),
            ("model_id", pa.string()),
            ("source_scenes", pa.list_(pa.string())),
            ("clear_fraction", pa.float32()),
        ]
    )
