"""Results of queries as files: JSON, GeoJSON, GeoParquet or CSV, by the file's suffix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.errors import QueryError
from data_catalog.licences import attribution, source_years

if TYPE_CHECKING:
    import geopandas as gpd

    from data_catalog.query import PublishedCodes


def check_result_path(path: Path) -> Path:
    """Returns the path if a result can be written to a file of that name.

    Raises:
        QueryError: Its suffix is none of those known.
    """
    if path.suffix.lower() not in _WRITERS:
        raise QueryError(
            f"Results cannot be written to {path}: its suffix should be one of "
            f"{', '.join(_WRITERS)}."
        )
    return path


def write_result(path: Path, result: gpd.GeoDataFrame, codes: PublishedCodes) -> None:
    """Writes what a query found, with the tile asked for as first column ``query``.

    Args:
        path: The file; its suffix says which format.
        result: As the methods of ``codes`` return it.
        codes: What was queried.

    Raises:
        QueryError: The suffix is unknown, or the file cannot be written.
    """
    write = _WRITERS[check_result_path(path).suffix.lower()]
    if "query" not in result:
        result = result.copy()
        result.insert(0, "query", result.attrs["query"])
    about = {
        "model": codes.model_id,
        "bits": codes.bits,
        "metric": "hamming",
        "version": codes.version,
        "attribution": attribution(source_years(codes.sensor, result["datetime"])),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, result, about)
    except OSError as error:
        raise QueryError(f"The result cannot be written to {path}: {error}.") from error


def _records(result: gpd.GeoDataFrame) -> list[dict[str, Any]]:
    frame = result.drop(columns="geometry")
    frame["datetime"] = [moment.isoformat() for moment in frame["datetime"]]
    rows = frame.to_dict("records")
    # A query without a place has no distance on the ground, and JSON has no NaN.
    return [{str(k): None if v != v else v for k, v in row.items()} for row in rows]


def _write_json(path: Path, result: gpd.GeoDataFrame, about: dict[str, Any]) -> None:
    path.write_text(json.dumps({**about, "results": _records(result)}, indent=2) + "\n")


def _write_geojson(path: Path, result: gpd.GeoDataFrame, about: dict[str, Any]) -> None:
    from shapely.geometry import mapping

    from data_catalog.geometry import within_world

    features = [
        {"type": "Feature", "properties": row, "geometry": mapping(within_world(footprint))}
        for row, footprint in zip(_records(result), result.geometry, strict=True)
    ]
    collection = {"type": "FeatureCollection", **about, "features": features}
    path.write_text(json.dumps(collection) + "\n")


def _write_parquet(path: Path, result: gpd.GeoDataFrame, about: dict[str, Any]) -> None:
    from data_catalog.geoparquet import write_geoparquet

    credit = {"attribution": about.pop("attribution")}
    ours = {f"rshash:{key}": str(value) for key, value in about.items()}
    write_geoparquet(path, result, credit | ours)


def _write_csv(path: Path, result: gpd.GeoDataFrame, about: dict[str, Any]) -> None:
    result.drop(columns="geometry").assign(model=about["model"]).to_csv(path, index=False)


_WRITERS: dict[str, Callable[[Path, gpd.GeoDataFrame, dict[str, Any]], None]] = {
    ".json": _write_json,
    ".geojson": _write_geojson,
    ".parquet": _write_parquet,
    ".csv": _write_csv,
}
