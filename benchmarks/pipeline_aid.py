"""How good are published codes of real pixels, and how fast does each stage make them?

The 10,000 aerial images of AID are laid out as tiles of scenes of two sensors over the same ground:
a fine one (96 pixels a tile) and a coarse one (40 pixels). They are served as a STAC catalogue over
HTTP, and the flows do the rest: ingest the database split, train MrHash (primary: coarse), ingest
the query split, re-hash, publish. The figures come from the published code table. Baselines use the
same features of the coarse sensor.

    python benchmarks/pipeline_aid.py --data ../shared/data --tiles 10000
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pystac
import rasterio
import shapely
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.shutil import copy as copy_raster

from data_catalog.grid import BLOCK_TILES, Tile, Zone

TILE_SIZE = 480
ZONE = Zone(32, "N")
FIRST_COLUMN, FIRST_ROW = 130 * BLOCK_TILES, 700 * BLOCK_TILES
SCENE_TILES = 20
SENSORS = {"aid-fine": 96, "aid-coarse": 40}
"""Pixels on a tile's side."""

BANDS = ["red", "green", "blue"]
SENSOR_TOML = """
["{sensor}"]
title = "AID at {resolution:g} m"
resolution = {resolution:g}
resampling = "nearest"
scale = {scale}
offset = {offset}
collections = {{ default = "{sensor}" }}
default_bands = ["red", "green", "blue"]
license = "other"
attribution = "AID (Xia et al., 2017)"
providers = []

["{sensor}".bands]
red = {{ keys = ["red"], resolution = {resolution:g} }}
green = {{ keys = ["green"], resolution = {resolution:g} }}
blue = {{ keys = ["blue"], resolution = {resolution:g} }}
"""


def sensors_toml() -> str:
    return "".join(
        SENSOR_TOML.format(
            sensor=sensor, resolution=TILE_SIZE / pixels, scale=1 / 255, offset=-1 / 255
        )
        for sensor, pixels in SENSORS.items()
    )


def choose_images(path: Path, tiles: int) -> pd.DataFrame:
    """Nine database images to one query image, as in the whole set, each with its tile."""
    images = pd.read_parquet(path)
    parts = [
        images[images["split"] == split].head(round(tiles * share))
        for split, share in (("database", 0.9), ("query", 0.1))
    ]
    chosen = pd.concat(parts, ignore_index=True)
    width = -(-int(np.ceil(np.sqrt(len(chosen)))) // BLOCK_TILES) * BLOCK_TILES
    chosen["column"] = FIRST_COLUMN + chosen.index % width
    chosen["row"] = FIRST_ROW + chosen.index // width
    chosen["tile_id"] = [
        Tile(ZONE, c, r, TILE_SIZE).id for c, r in zip(chosen["column"], chosen["row"], strict=True)
    ]
    return chosen


def write_world(folder: Path, images: pd.DataFrame) -> None:
    catalog = pystac.Catalog("aid", "AID as scenes of two sensors")
    scene_of = [images["column"] // SCENE_TILES, images["row"] // SCENE_TILES]
    for sensor, pixels in SENSORS.items():
        items = [
            write_scene(folder / sensor, sensor, pixels, int(column), int(row), group)
            for (column, row), group in images.groupby(scene_of)
        ]
        extent = pystac.Extent(
            pystac.SpatialExtent(
                [list(shapely.union_all([shapely.box(*i.bbox) for i in items]).bounds)]
            ),
            pystac.TemporalExtent([[items[0].datetime, items[0].datetime]]),
        )
        collection = pystac.Collection(sensor, sensor, extent)
        collection.add_items(items)
        catalog.add_child(collection)
    catalog.normalize_and_save(str(folder), pystac.CatalogType.SELF_CONTAINED)


def write_scene(
    folder: Path, sensor: str, pixels: int, column: int, row: int, images: pd.DataFrame
) -> pystac.Item:
    side = SCENE_TILES * pixels
    canvas = np.zeros((3, side, side), np.uint16)
    for image in images.itertuples():
        picture = Image.open(io.BytesIO(image.image)).convert("RGB")
        if pixels != picture.width:
            picture = picture.resize((pixels, pixels), Image.Resampling.BOX)
        x = (image.column - column * SCENE_TILES) * pixels
        y = (SCENE_TILES - 1 - image.row + row * SCENE_TILES) * pixels
        canvas[:, y : y + pixels, x : x + pixels] = np.moveaxis(
            np.asarray(picture), -1, 0
        ) + np.uint16(1)
    resolution = TILE_SIZE / pixels
    west, north = column * SCENE_TILES * TILE_SIZE, (row + 1) * SCENE_TILES * TILE_SIZE
    transform = rasterio.Affine(resolution, 0, west, 0, -resolution, north)
    south, east = north - SCENE_TILES * TILE_SIZE, west + SCENE_TILES * TILE_SIZE
    lon, lat = ZONE.unproject([west, east, east, west], [south, south, north, north])
    footprint = shapely.Polygon(np.stack([lon, lat], 1))
    item = pystac.Item(
        f"{sensor}-{column}-{row}",
        shapely.geometry.mapping(footprint),
        list(footprint.bounds),
        pd.Timestamp("2020-06-01T10:00:00Z").to_pydatetime(),
        {
            "platform": sensor,
            "proj:epsg": ZONE.epsg,
            "proj:shape": [side, side],
            "proj:transform": list(transform)[:6],
        },
        stac_extensions=["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
    )
    folder.joinpath(item.id).mkdir(parents=True, exist_ok=True)
    for band, data in zip(BANDS, canvas, strict=True):
        path = folder / item.id / f"{band}.tif"
        write_cog(path, data, transform)
        item.add_asset(
            band, pystac.Asset(f"./{band}.tif", media_type=pystac.MediaType.COG, roles=["data"])
        )
    return item


def write_cog(path: Path, data: np.ndarray, transform: rasterio.Affine) -> None:
    profile = {
        "driver": "GTiff", "dtype": "uint16", "count": 1, "nodata": 0, "crs": f"EPSG:{ZONE.epsg}",
        "width": data.shape[1], "height": data.shape[0], "transform": transform,
    }  # fmt: skip
    with MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(data, 1)
        with memory.open() as raster:
            copy_raster(
                raster, path, driver="COG", compress="DEFLATE", blocksize=512, overviews="AUTO"
            )


def points_file(path: Path, images: pd.DataFrame) -> str:
    centres = [Tile(ZONE, i.column, i.row, TILE_SIZE).centre for i in images.itertuples()]
    path.write_text(json.dumps(shapely.geometry.mapping(shapely.MultiPoint(centres))))
    return str(path)


class Stopwatch:
    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def time(self, stage: str, tiles: int, run: object) -> object:
        print(f"{stage} …", file=sys.stderr, flush=True)
        start = time.perf_counter()
        result = run()  # type: ignore[operator]
        seconds = time.perf_counter() - start
        self.rows.append(
            {
                "stage": stage,
                "tiles": tiles,
                "seconds": round(seconds, 1),
                "tiles/s": round(tiles / seconds, 1),
            }
        )
        return result


def run_pipeline(
    folder: Path, images: pd.DataFrame, checkpoint: Path, clusters: int, seed: int
) -> dict:
    from data_catalog.http_server import serve_folder
    from flows.ingest import ingest
    from flows.parameters import IngestFlowParameters, RehashFlowParameters, TrainParameters
    from flows.rehash import rehash
    from flows.server import prefect_server
    from flows.train import extract_features, train

    catalog = str(folder / "catalogue")
    sensors = ["aid-coarse", "aid-fine"]
    watch = Stopwatch()
    watch.time("write the scenes", len(images), lambda: write_world(folder / "world", images))
    database, queries = (images[images["split"] == split] for split in ("database", "query"))
    training = TrainParameters(
        catalog=catalog,
        sensors=sensors,
        tile_size=TILE_SIZE,
        extractor="timm",
        timm_architecture="mobilenetv1_100",
        checkpoint=[str(checkpoint)],
        timm_options={"pad_type": "same", "bn_eps": 1e-3},
        reflectance_ceiling=1.0,
        clusters=clusters,
        seed=seed,
    )
    with prefect_server(folder / "prefect"), serve_folder(folder / "world") as address:

        def ingest_split(part: pd.DataFrame, name: str) -> object:
            area = points_file(folder / f"{name}.geojson", part)
            return ingest(
                IngestFlowParameters(
                    catalog=catalog, sensors=sensors, area=area, source=f"{address}/catalog.json",
                    period="2020-01-01/2020-12-31", tile_size=TILE_SIZE,
                )
            )  # fmt: skip

        watch.time(
            "ingest, database split, 2 sensors",
            2 * len(database),
            lambda: ingest_split(database, "database"),
        )
        for sensor in sensors:
            watch.time(
                f"features {sensor}",
                len(database),
                lambda s=sensor: extract_features.fn(training, s),
            )
        model_id = watch.time("train MrHash", len(database), lambda: train(training))
        watch.time(
            "rehash and publish, database split",
            len(database),
            lambda: rehash(RehashFlowParameters(catalog=catalog)),
        )
        watch.time(
            "ingest, query split, 2 sensors",
            2 * len(queries),
            lambda: ingest_split(queries, "queries"),
        )
        watch.time(
            "rehash and publish, query split",
            len(queries),
            lambda: rehash(RehashFlowParameters(catalog=catalog)),
        )
    return {"catalog": catalog, "model": model_id, "stages": watch.rows, "training": training}


def evaluate(images: pd.DataFrame, run: dict, seed: int) -> list[dict[str, object]]:
    from data_catalog.catalogue import Catalogue
    from data_catalog.code_tables import codes_of, collection_of, published_table
    from data_catalog.feature_cache import observation_features
    from data_catalog.models import load_model
    from data_catalog.observations import current_observations
    from flows.learning import extractor_for
    from rshash import baselines
    from rshash.evaluation import mean_average_precision, mean_average_precision_of_features
    from rshash.scaling import FeatureScaling

    catalogue = Catalogue.open(run["catalog"])
    model = load_model(catalogue)
    table = pd.concat(
        [published_table(catalogue, i) for i in catalogue.items(collection_of(model.model_id))]
    )
    published = table.join(images.set_index("tile_id")[["label", "split"]], on="tile_id")
    bits = model.bits
    is_query = (published["split"] == "query").to_numpy()
    labels = published["label"].to_numpy()

    sensor = "aid-coarse"
    extractor = extractor_for(run["training"], sensor)
    observations = current_observations(catalogue, sensor)
    features = pd.DataFrame(
        observation_features(catalogue, sensor, observations, extractor),
        index=observations["tile_id"],
    ).loc[published["tile_id"]].to_numpy(np.float32)  # fmt: skip
    features = FeatureScaling.fit(features[~is_query]).apply(features)

    def row(method: str, packed: np.ndarray) -> dict[str, object]:
        args = packed[is_query], labels[is_query], packed[~is_query], labels[~is_query]
        return {
            "codes or features": method,
            "mean AP": mean_average_precision(*args),
            "mean AP at 20": mean_average_precision(*args, at=20),
        }

    database = features[~is_query]
    hashes = {
        "ITQ": baselines.fit_itq(database, bits, seed=seed),
        "LSH": baselines.fit_lsh(database, bits, seed=seed),
        "PCA-sign": baselines.fit_pca_sign(database, bits),
    }
    rows = [row(f"MrHash, {bits} bit, from the published table", codes_of(published, bits))]
    rows += [row(f"{name}, {bits} bit", one.encode(features)) for name, one in hashes.items()]
    args = features[is_query], labels[is_query], features[~is_query], labels[~is_query]
    rows.append(
        {
            "codes or features": f"float cosine, {features.shape[1]} dimensions",
            "mean AP": mean_average_precision_of_features(*args),
            "mean AP at 20": mean_average_precision_of_features(*args, at=20),
        }
    )
    return rows


def print_table(rows: list[dict[str, object]]) -> None:
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.3f"))
    print()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder that holds aid/"
    )
    parser.add_argument("--tiles", type=int, default=10_000, help="how many images to use")
    parser.add_argument("--clusters", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    archive = options.data / "aid" / "aid-images-96px.parquet"
    if not archive.exists():
        sys.exit(
            f"{archive} is missing: --data names the folder that holds aid/; nothing was measured."
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "sensors.toml").write_text(sensors_toml())
        os.environ["RSHASH_SENSORS"] = str(folder / "sensors.toml")
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        images = choose_images(archive, options.tiles)
        checkpoint = options.data / "mobilenetv1_100-imagenet-trunk.safetensors"
        run = run_pipeline(folder, images, checkpoint, options.clusters, options.seed)
        quality = evaluate(images, run, options.seed)
    print_table(quality)
    print_table(run["stages"])
    mrhash, itq = float(quality[0]["mean AP"]), float(quality[1]["mean AP"])
    print(f"MrHash beats ITQ by {mrhash - itq:.3f} in mean AP.")
    if options.json:
        options.json.write_text(json.dumps({"quality": quality, "stages": run["stages"]}, indent=1))


if __name__ == "__main__":
    main()
