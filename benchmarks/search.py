"""How fast are exact searches beside faiss, usearch, DuckDB and numpy; what does one look-up cost?

Every line is one table of codes and one batch of queries; all engines search the same codes in one
run, each as its own documentation has it, and their distances must agree. What is built once (an
index, a loaded array) is not timed; `first query` is rshash before anything is built. DuckDB runs
plain SQL over the Parquet. Given are the best times of several repeats.

Random codes never repeat. Codes as learned come from MrHash, trained on AID's features (see
../shared/data/README.md), repeated to size in random order; without AID an imitation takes their
place: as many distinct codes, in clusters.

The second part writes a code table of many rows, as `rshash rehash` publishes them, and times the
look-up of tile IDs and the whole command `rshash similar` from a cold start.

Ten million codes take more than 12 GiB of memory, and one number of bits ten minutes.

    python benchmarks/search.py --codes 1e6 1e7 --rows 1e7
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import duckdb
import faiss
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from usearch.index import MetricKind
from usearch.index import search as usearch_search

from data_catalog.catalogue import Catalogue
from data_catalog.code_schema import code_columns, code_table_schema, collection_of
from data_catalog.geometry import outline
from data_catalog.geoparquet import ROW_GROUP_ROWS, write_geoparquet
from data_catalog.grid import Tile, Zone, corners_of
from data_catalog.models import publish_model
from data_catalog.query_tables import CodeTables
from data_catalog.stac_items import code_table_item
from rshash.codes import Words, pack
from rshash.features import make_extractor
from rshash.head import HashHead
from rshash.model import Model
from rshash.report_text import table
from rshash.scaling import FeatureScaling
from rshash.search import CodeIndex

ROOT = Path(__file__).parents[1]
K = 10
ENGINES = ("rshash", "first query", "faiss", "usearch", "numpy", "DuckDB SQL")
SLOW = 5.0
"""Seconds after which a measurement is not repeated."""

Search = Callable[[Words], np.ndarray]


def random_codes(bits: int, n: int) -> Words:
    return np.random.default_rng(0).integers(0, 2**64, (n, bits // 64), np.uint64)


def learned_codes(bits: int, folder: Path) -> tuple[str, Words]:
    """Codes of real tiles and where they come from; saved, since training takes a while."""
    aid = ROOT.parent / "shared" / "data" / "aid"
    if not aid.exists():
        return "imitated", imitated_codes(bits)
    saved = folder / f"aid-mrhash-{bits}.npy"
    if not saved.exists():
        from quality_aid import Aid, mrhash_settings, outputs_of

        from rshash.mrhash import train_mrhash

        data = Aid(aid)
        sources = [data.database(source) for source in ("coarse", "fine")]
        trained = train_mrhash(sources, mrhash_settings(bits, 0))
        folder.mkdir(parents=True, exist_ok=True)
        np.save(saved, pack(outputs_of(trained, sources[0])))
    return "learned (AID)", np.load(saved)


def imitated_codes(bits: int, distinct: int = 5000, clusters: int = 30) -> Words:
    random = np.random.default_rng(1)
    centres = random.random((clusters, bits)) < 0.5
    flipped = random.random((distinct, bits)) < 0.1
    return pack(np.where(centres[random.integers(clusters, size=distinct)] ^ flipped, 1.0, -1.0))


def numpy_search(codes: Words, queries: Words) -> np.ndarray:
    found = []
    for query in queries:
        distances = np.bitwise_count(codes ^ query).sum(axis=1, dtype=np.uint16)
        found.append(np.sort(np.partition(distances, K)[:K]))
    return np.array(found)


def duckdb_search(connection: duckdb.DuckDBPyConnection, path: Path, queries: Words) -> np.ndarray:
    names = code_columns(64 * queries.shape[1])
    distance = " + ".join(f"bit_count(xor({name}, ?::UBIGINT))" for name in names)
    sql = f"SELECT {distance} AS d FROM '{path}' ORDER BY d, tile_id LIMIT {K}"
    return np.array([connection.execute(sql, q.tolist()).fetchnumpy()["d"] for q in queries])


def engines(codes: Words, folder: Path, threads: int) -> dict[str, Search]:
    bits = 64 * codes.shape[1]
    index = CodeIndex(codes, bits)
    index.prepare()
    flat = faiss.IndexBinaryFlat(bits)
    flat.add(codes.view(np.uint8))
    octets = codes.view(np.uint8)

    def by_usearch(queries: Words) -> np.ndarray:
        asked = queries.view(np.uint8)
        found = usearch_search(octets, asked, K, MetricKind.Hamming, exact=True, threads=threads)
        return np.atleast_2d(found.distances)

    path = folder / "codes.parquet"
    tile_ids = np.char.mod("UTM1920-32N_%08d", np.arange(len(codes)))
    columns = {name: codes[:, i] for i, name in enumerate(code_columns(bits))}
    pq.write_table(
        pa.table({"tile_id": pa.array(tile_ids), **columns}),
        path,
        compression="zstd",
        row_group_size=ROW_GROUP_ROWS,
    )
    connection = duckdb.connect(config={"threads": threads})
    return {
        "rshash": lambda queries: index.nearest(queries, K)[0],
        "first query": lambda queries: CodeIndex(codes, bits).nearest(queries, K)[0],
        "faiss": lambda queries: flat.search(queries.view(np.uint8), K)[0],
        "usearch": by_usearch,
        "numpy": partial(numpy_search, codes),
        "DuckDB SQL": partial(duckdb_search, connection, path),
    }


def best_seconds(work: Callable[[], object], repeats: int) -> float:
    times: list[float] = []
    # What takes microseconds is repeated until other programs have left it alone once.
    while len(times) < repeats or sum(times) < 0.2:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
        if times[-1] > SLOW:
            break
    return min(times)


def compare(kind: str, codes: Words, repeats: int, threads: int) -> list[dict[str, object]]:
    lines = []
    sample = np.random.default_rng(2).integers(0, len(codes), 100)
    with tempfile.TemporaryDirectory() as folder:
        searches = engines(codes, Path(folder), threads)
        for batch in (1, 100):
            queries = np.ascontiguousarray(codes[sample[:batch]])
            expected = searches["faiss"](queries)
            line: dict[str, object] = {
                "codes": kind,
                "n": len(codes),
                "bits": 64 * codes.shape[1],
                "queries": batch,
            }
            for name, search in searches.items():
                if name == "first query" and batch > 1:
                    continue
                if not np.array_equal(search(queries), expected):
                    raise SystemExit(f"{name} found other distances than faiss.")
                line[name] = best_seconds(partial(search, queries), repeats)
            lines.append(line)
            print(json.dumps(line), flush=True)
    return lines


def comparison_table(lines: list[dict[str, object]]) -> str:
    rows = []
    for line in lines:
        own = float(str(line["rshash"]))
        cells = [f"{line['codes']}, {line['n']:.0e} x {line['bits']} bit, {line['queries']}"]
        for name in ENGINES:
            seconds = line.get(name)
            ratio = "" if seconds is None else f"{1e3 * seconds:.3g} ms ({seconds / own:.3g}x)"
            cells.append(ratio)
        rows.append(cells)
    return table(["codes and queries", *ENGINES], rows)


def write_rows(path: Path, rows: int, bits: int, model_id: str) -> None:
    """A table as `write_code_table` writes it, row group by row group: it would not fit at once."""
    zone, size, tall = Zone(32, "N"), 480, 8000
    random = np.random.default_rng(3)
    writer = None
    for start in range(0, rows, ROW_GROUP_ROWS):
        places = np.arange(start, min(rows, start + ROW_GROUP_ROWS))
        across, up = 400 + places // tall, 1000 + places % tall
        prefix = Tile(zone, 400, 1000, size).id.partition("_")[0]
        pairs = zip(across.tolist(), up.tolist(), strict=True)
        frame = pd.DataFrame({"tile_id": [f"{prefix}_{x:04d}_{y:04d}" for x, y in pairs]})
        frame["datetime"] = pd.Timestamp("2024-06-01", tz="UTC")
        for name in code_columns(bits):
            frame[name] = random.integers(0, 2**64, len(places), np.uint64)
        frame["code_source"], frame["model_id"] = "network", model_id
        frame["source_scenes"] = [["S2A_MSIL2A_20240601T102031_R065_T32UNU"]] * len(places)
        frame["clear_fraction"] = random.random(len(places), np.float32)
        part = path.with_suffix(".part")
        corners = shapely.polygons(corners_of(zone, across, up, size))
        squares = gpd.GeoDataFrame(frame, geometry=corners, crs="OGC:CRS84")
        write_geoparquet(part, squares, {}, code_table_schema(bits))
        group = pq.read_table(part)
        writer = writer or pq.ParquetWriter(path, group.schema, compression="zstd")
        writer.write_table(group)
        part.unlink()
    assert writer is not None
    writer.close()


def publish_rows(root: Path, rows: int, bits: int) -> Catalogue:
    """A catalogue with one published table of so many rows; one that is there is used again."""
    if (root / "catalog.json").exists():
        return Catalogue.open(root)
    # Under its own name once it is whole: a run may be cut off.
    unfinished = root.with_name(f".{root.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    catalogue = Catalogue.create(unfinished)
    spec = {"kind": "mosaiks", "bands": ["blue", "green", "red"], "features": 16, "seed": 1}
    extractor = make_extractor(spec)
    scaling = FeatureScaling(np.zeros(extractor.dimensions, np.float32))
    head = HashHead(extractor.dimensions, bits, hidden=8).eval()
    sensor = "sentinel-2-l2a"
    model = Model("mrhash", sensor, (), 480, extractor, scaling, head)
    publish_model(catalogue, model)
    collection, item_id = collection_of(model.model_id), f"{model.model_id}-UTM480-32N-v1"
    path = catalogue.asset_folder(collection, item_id) / "codes.parquet"
    write_rows(path, rows, bits, model.model_id)
    first = pq.ParquetFile(path).read_row_group(0).slice(0, 100)
    region = outline(shapely.from_wkb(first["geometry"].to_numpy()))
    catalogue.publish(collection, code_table_item(item_id, model, first, path, 1, {}, region))
    return Catalogue.open(unfinished.rename(root))


def look_up(catalogue: Catalogue, rows: int) -> dict[str, float]:
    [path] = catalogue.root.rglob("codes.parquet")
    chosen = np.random.default_rng(4).integers(0, rows, 200).tolist()
    tile_ids = [Tile(Zone(32, "N"), 400 + p // 8000, 1000 + p % 8000, 480).id for p in chosen]
    tables = CodeTables([path])
    first, again = [], []
    for times in (first, again):
        for tile_id, row in zip(tile_ids, chosen, strict=True):
            start = time.perf_counter()
            found = tables.row(tile_id)
            times.append(time.perf_counter() - start)
            assert found == row
    command = [str(Path(sys.executable).with_name("rshash")), "similar", tile_ids[0]]
    command += ["--catalog", str(catalogue.root)]
    run = partial(subprocess.run, command, check=True, capture_output=True)
    return {
        "first look-up in a row group, median": median(first),
        "look-up, median": median(again),
        "look-up, slowest": max(again),
        "rshash similar, cold start": best_seconds(run, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=float, nargs="*", default=[1e6], help="numbers of codes")
    parser.add_argument("--bits", type=int, nargs="*", default=[64, 128], choices=[64, 128])
    parser.add_argument("--rows", type=float, default=1e6, help="rows of the table to look up in")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "benchmarks" / "search")
    options = parser.parse_args()
    faiss.omp_set_num_threads(options.threads)
    lines = []
    for n in map(int, options.codes):
        for bits in options.bits:
            lines += compare("random", random_codes(bits, n), options.repeats, options.threads)
            kind, base = learned_codes(bits, options.output)
            kind += f", {len(np.unique(base, axis=0))} distinct"
            repeated = base[np.random.default_rng(5).integers(0, len(base), n)]
            lines += compare(kind, repeated, options.repeats, options.threads)
    rows = int(options.rows)
    world = options.output / f"catalogue-{rows}"
    seconds = look_up(publish_rows(world, rows, 64), rows) if rows else {}
    options.output.mkdir(parents=True, exist_ok=True)
    result = {"threads": options.threads, "k": K, "searches": lines, "look-up": seconds}
    (options.output / "search.json").write_text(json.dumps(result, indent=2) + "\n")
    print(comparison_table(lines))
    shown = [[name, f"{1e3 * value:.3g} ms"] for name, value in seconds.items()]
    print(table([f"table of {rows:,} rows on disk", "time"], shown))


if __name__ == "__main__":
    main()
