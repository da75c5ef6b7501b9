"""GeoParquet 1.1: tables with WKB geometries, a bounding box per row, and attribution."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from data_catalog.geometry import bounding_boxes, within_world

if TYPE_CHECKING:
    import geopandas as gpd

ROW_GROUP_ROWS = 100_000
DICTIONARY_BYTES = 1 << 16
"""Columns of values that hardly repeat, such as codes, soon give up their dictionary."""

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def write_geoparquet(
    path: Path,
    frame: gpd.GeoDataFrame,
    metadata: Mapping[str, str],
    schema: pa.Schema | None = None,
) -> None:
    """Writes a table of tiles, with zstd and in row groups of 100,000.

    Args:
        path: The file.
        frame: Any columns, and ``geometry``: one-piece footprints, longitude and latitude.
        metadata: Goes into the file's key-value metadata, such as the attribution.
        schema: Types of the columns besides the geometry; inferred without it.
    """
    table = pa.Table.from_pandas(frame.drop(columns="geometry"), schema, preserve_index=False)
    table = with_footprints(table, frame.geometry.to_numpy())
    write_tiles(path, table.replace_schema_metadata({**metadata, **_geo_of(table)}))


def with_footprints(table: pa.Table, footprints: NDArray[np.object_]) -> pa.Table:
    """A table of tiles with the columns ``geometry`` and ``bbox``, and metadata that tell of them.

    Args:
        table: Any columns.
        footprints: A geometry a row, in one piece, longitude and latitude.
    """
    cut = np.array([within_world(g) for g in footprints], object)
    table = table.append_column("geometry", pa.array(shapely.to_wkb(cut), pa.binary()))
    boxes = bounding_boxes(footprints)
    corners = [pa.array(boxes[:, i]) for i in range(4)]
    table = table.append_column("bbox", pa.StructArray.from_arrays(corners, names=list(CORNERS)))
    return table.replace_schema_metadata({"geo": json.dumps(_geo_metadata(cut))})


def write_tiles(path: Path, table: pa.Table) -> None:
    """Writes a table that has footprints and its metadata, with zstd, in row groups of 100,000."""
    pq.write_table(
        table,
        path,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
        dictionary_pagesize_limit=DICTIONARY_BYTES,
    )


def geo_of_all(tables: Sequence[pa.Table]) -> dict[str, str]:
    """The metadata that tell of the geometries of several tables' rows together."""
    told = [json.loads(_geo_of(table)["geo"]) for table in tables if table.num_rows]
    columns = [one["columns"]["geometry"] for one in told]
    boxes = np.array([column["bbox"] for column in columns])
    types = sorted({name for column in columns for name in column["geometry_types"]})
    bbox = [*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]
    column = {**columns[0], "geometry_types": types, "bbox": bbox}
    return {"geo": json.dumps({**told[0], "columns": {"geometry": column}})}


def read_geoparquet(path: Path) -> gpd.GeoDataFrame:
    """Reads a table with its geometries; the ``bbox`` column is left out."""
    import geopandas as gpd

    return gpd.read_parquet(path)


def _geo_of(table: pa.Table) -> dict[str, str]:
    return {"geo": table.schema.metadata[b"geo"].decode()}


def _geo_metadata(geometries: Any) -> dict[str, Any]:
    column = {
        "encoding": "WKB",
        "geometry_types": sorted({g.geom_type for g in geometries}),
        "edges": "planar",
        "covering": {"bbox": {corner: ["bbox", corner] for corner in CORNERS}},
    }
    if len(geometries):
        column["bbox"] = shapely.total_bounds(geometries).tolist()
    # Without a "crs" a column is in OGC:CRS84: longitude, latitude on WGS 84.
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
