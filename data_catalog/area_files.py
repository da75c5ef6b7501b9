"""Areas in files: CSV, GeoJSON and GeoParquet, checked row by row."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from data_catalog.errors import AreaError, GridError
from data_catalog.grid import (
    NORTH_LIMIT,
    SOUTH_LIMIT,
    parse_tile_id,
    places_in,
)

COORDINATES = (("lon", "lat"), ("longitude", "latitude"), ("x", "y"))
COLUMNS = "lon and lat, longitude and latitude, x and y, geometry (as WKT), or tile_id"
_LONGITUDES_AND_LATITUDES = (pyproj.CRS("OGC:CRS84"), pyproj.CRS(4326))
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class _Rows:
    """Rows of a file, by column; ``number`` says where each stands in it."""

    file: str
    unit: str
    numbers: Sequence[int]
    columns: dict[str, Sequence[Any]]

    def fault(self, row: int | np.integer[Any], what: str) -> AreaError:
        return AreaError(f"{self.file}, {self.unit} {self.numbers[int(row)]}: {what}")


def read_area_file(path: Path, tile_size: int | None = None) -> NDArray[np.object_]:
    """The geometries of a file, one a row or feature.

    Args:
        path: A table with a header (``.csv``, ``.tsv``), GeoParquet (``.parquet``,
            ``.geoparquet``), else GeoJSON. Tables have columns :data:`COLUMNS`; tile IDs come
            before geometries, these before coordinates.
        tile_size: Metres that the tiles of IDs must have on a side; None for any.

    Returns:
        Valid geometries in longitude and latitude, degrees, longitudes within ±180°. A tile ID is
        a point that belongs to the tile.

    Raises:
        AreaError: The file is none of these, is empty, or a row is bad; names its line.
    """
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv"):
            return _table_geometries(_csv_rows(path), tile_size)
        if kind in (".parquet", ".geoparquet"):
            return _table_geometries(_parquet_rows(path), tile_size)
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise AreaError(
            f"{path} is no text in UTF-8: expected CSV (.csv), GeoJSON (.geojson) or GeoParquet "
            "(.parquet)."
        ) from None
    except OSError as error:
        raise AreaError(f"{path} cannot be read: {error.strerror or error}.") from None
    return read_geojson(content, str(path))


def read_geojson(content: str, name: str) -> NDArray[np.object_]:
    """The geometries of GeoJSON text, one a feature; else as :func:`read_area_file`.

    Args:
        content: The text.
        name: What messages call it.
    """
    try:
        record = json.loads(content)
        _check_crs(record.get("crs"), name)
        parts = _features(record)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AreaError(
            f"{name} is not valid GeoJSON: {_told(error)}. Expected a FeatureCollection, a Feature "
            "or a geometry; files of tables end in .csv, .tsv or .parquet."
        ) from None
    rows = _Rows(name, "feature", range(1, len(parts) + 1), {"geometry": parts})
    return _checked(rows, [_from_geojson(rows, row, part) for row, part in enumerate(parts)])


def _features(record: dict[str, Any]) -> list[Any]:
    if record["type"] == "FeatureCollection":
        return [feature["geometry"] for feature in record["features"]]
    return [record["geometry"] if record["type"] == "Feature" else record]


def _from_geojson(rows: _Rows, row: int, part: Any) -> BaseGeometry:
    if part is None:
        raise rows.fault(row, "it has no geometry: leave the feature out.")
    try:
        geometry: BaseGeometry = shape(part)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        shapely.errors.ShapelyError,
    ) as e:
        raise rows.fault(row, f"its geometry is not valid GeoJSON: {_told(e)}.") from None
    return geometry


def _told(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error).rstrip(".")


def _check_crs(member: Any, name: str) -> None:
    if member is None:
        return
    written = member.get("properties", {}).get("name", member)
    try:
        crs = pyproj.CRS(str(written))
    except pyproj.exceptions.CRSError:
        crs = None
    _check_degrees(crs, str(written), name)


def _check_degrees(crs: pyproj.CRS | None, written: str, name: str) -> None:
    if crs is None or not any(crs.equals(known, True) for known in _LONGITUDES_AND_LATITUDES):
        raise AreaError(
            f"{name} is in {written}, but areas are in longitude and latitude on WGS 84 "
            "(OGC:CRS84, EPSG:4326): convert it, in geopandas with gdf.to_crs(4326)."
        )


def _csv_rows(path: Path) -> _Rows:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = file.readline()
        delimiter = max(_DELIMITERS, key=header.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter)
        names = [name.strip().lower() for name in next(reader, [])]
        records, numbers, last = [], [], reader.line_num
        try:
            for record in reader:
                # A quoted field may hold line breaks: a record starts where the last one ended.
                number, last = last + 1, reader.line_num
                if any(cell.strip() for cell in record):
                    records.append(record)
                    numbers.append(number)
        except csv.Error as error:
            raise AreaError(f"{path}, line {reader.line_num}: {error}.") from None
    columns = [name for name in _wanted(path, names) if name in names]
    rows = _Rows(str(path), "line", numbers, {})
    for row, record in enumerate(records):
        if len(record) != len(names):
            raise rows.fault(
                row,
                f"it has {len(record)} fields, but the header {len(names)}: put fields that hold "
                f"{delimiter!r} in quotes.",
            )
    for name in columns:
        place = names.index(name)
        rows.columns[name] = [record[place].strip() for record in records]
    return rows


def _parquet_rows(path: Path) -> _Rows:
    import geopandas as gpd  # takes longer than any other area

    try:
        schema = pq.read_schema(path)
        names = schema.names
        if "tile_id" in names or b"geo" not in (schema.metadata or {}):
            wanted = _wanted(path, names)
            table = pq.read_table(path, columns=list(wanted))
            columns: dict[str, Sequence[Any]] = {n: table[n].to_pylist() for n in wanted}
            return _Rows(str(path), "row", range(1, len(table) + 1), columns)
        frame = gpd.read_parquet(path)
    except (ValueError, TypeError, KeyError) as error:
        raise AreaError(f"{path} is not valid GeoParquet: {_told(error)}.") from None
    if frame.crs is None:
        raise AreaError(f"{path} does not tell its CRS: in geopandas, set it with gdf.set_crs().")
    _check_degrees(frame.crs, frame.crs.to_string(), str(path))
    numbers = range(1, len(frame) + 1)
    return _Rows(str(path), "row", numbers, {"geometry": list(frame.geometry)})


def _wanted(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    for wanted in (("tile_id",), ("geometry",), *COORDINATES):
        if set(wanted) <= set(names):
            return wanted
    found = ", ".join(filter(None, names)) or "none"
    raise AreaError(
        f"{path} has no columns {COLUMNS}: it has {found}. Rename those that tell places."
    )


def _table_geometries(rows: _Rows, tile_size: int | None) -> NDArray[np.object_]:
    if "tile_id" in rows.columns:
        return _places(rows, rows.columns["tile_id"], tile_size)
    if "geometry" in rows.columns:
        cells = enumerate(rows.columns["geometry"])
        return _checked(rows, [_from_wkt(rows, row, cell) for row, cell in cells])
    numbers = [_degrees(rows, name, cells) for name, cells in rows.columns.items()]
    return _checked(rows, list(shapely.points(np.stack(numbers, 1))))


def _places(rows: _Rows, tile_ids: Iterable[Any], tile_size: int | None) -> NDArray[np.object_]:
    tiles = []
    for row, tile_id in enumerate(tile_ids):
        try:
            tile = parse_tile_id(str(tile_id))
        except GridError as error:
            raise rows.fault(row, str(error)) from None
        if tile_size not in (None, tile.size):
            raise rows.fault(
                row, f"tile {tile_id} is {tile.size} m on a side: add --tile-size {tile.size}."
            )
        tiles.append(tile)
    places = places_in(tiles)
    for out in np.flatnonzero(shapely.is_empty(places)):
        raise rows.fault(out, f"no place belongs to tile {tiles[out].id}: it is out of its zone.")
    return _not_empty(rows, places)


def _from_wkt(rows: _Rows, row: int, cell: Any) -> BaseGeometry:
    if isinstance(cell, BaseGeometry):
        return cell
    if not cell:
        raise rows.fault(row, "it has no geometry: leave it out.")
    try:
        geometry: BaseGeometry = shapely.from_wkt(cell)
    except (shapely.errors.ShapelyError, TypeError):
        raise rows.fault(row, f"geometry {str(cell)[:60]!r} is no WKT.") from None
    return geometry


def _degrees(rows: _Rows, name: str, cells: Sequence[Any]) -> NDArray[np.float64]:
    numbers = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            numbers[row] = float(cell)
        except (TypeError, ValueError):
            numbers[row] = math.nan
        if not math.isfinite(numbers[row]):
            raise rows.fault(
                row,
                f"{name} {cell!r} is not a number of degrees: write one with a decimal point, such "
                "as 9.06, or take the row out.",
            )
    return numbers


def _checked(rows: _Rows, geometries: Sequence[BaseGeometry]) -> NDArray[np.object_]:
    found = shapely.force_2d(np.asarray(geometries, object))
    _not_empty(rows, found)
    for row in np.flatnonzero(shapely.is_empty(found)):
        raise rows.fault(row, "its geometry is empty: leave it out.")
    parts, owners = shapely.get_parts(found, return_index=True)
    for bad in np.flatnonzero(~shapely.is_valid(parts)):
        reason = shapely.is_valid_reason(parts[bad])
        raise rows.fault(
            owners[bad], f"its geometry is not valid: {reason}. shapely.make_valid() mends it."
        )
    _check_bounds(rows, found)
    _check_edges(rows, found)
    return found


def _not_empty(rows: _Rows, geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    if not len(geometries):
        raise AreaError(f"{rows.file} is empty: write at least one {rows.unit} with a place.")
    return geometries


def _check_bounds(rows: _Rows, geometries: NDArray[np.object_]) -> None:
    west, south, east, north = shapely.bounds(geometries).T
    for row in np.flatnonzero(~((west >= -180.0) & (east <= 180.0))):
        lon = west[row] if west[row] < -180.0 else east[row]
        raise rows.fault(
            row,
            f"longitude {lon:g} is outside -180 to 180. Longitudes and latitudes are degrees on "
            "WGS 84; what lies over the antimeridian is cut there (RFC 7946).",
        )
    for row in np.flatnonzero(~((south >= SOUTH_LIMIT) & (north <= NORTH_LIMIT))):
        lat = south[row] if south[row] < SOUTH_LIMIT else north[row]
        raise rows.fault(
            row,
            f"latitude {lat:g} is outside the tile grid ({SOUTH_LIMIT:g} to {NORTH_LIMIT:g}). "
            "Longitudes come before latitudes.",
        )


def _check_edges(rows: _Rows, geometries: NDArray[np.object_]) -> None:
    # From 179° to -179°: a polygon that should have been cut would pass for one around the globe.
    wide = np.flatnonzero(np.ptp(shapely.bounds(geometries)[:, [0, 2]], axis=1) > 180.0)
    for row in wide:
        for part in shapely.get_parts(shapely.get_parts(geometries[row])):
            ring = shapely.get_coordinates(shapely.get_exterior_ring(part))
            edges = np.abs(np.diff(ring[:, 0]))
            if len(edges) and edges.max() > 180.0:
                raise rows.fault(
                    row,
                    f"an edge of its polygon spans {edges.max():g}° of longitude: cut what lies "
                    "over the antimeridian there (RFC 7946), or give long edges more vertices.",
                )
