"""The demonstration world's land cover map, shaped like ESA WorldCover at Planetary Computer."""

from __future__ import annotations

import json
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine, from_origin
from rasterio.warp import Resampling, reproject
from shapely.geometry import Polygon, box, mapping

from data_catalog.demo_world.items import COG_TYPE
from data_catalog.demo_world.landscape import Ground
from data_catalog.demo_world.scenes import World
from data_catalog.demo_world.spectra import FIRST_CROP, MATERIALS, Material
from data_catalog.grid import FALSE_NORTHING_SOUTH

LAND_COVER = "esa-worldcover"
YEAR = 2021
STEPS = 12_000
"""Pixels to a degree."""

SQUARE = 3
"""Degrees on a side of one map."""

TREES, SHRUBS, GRASS, CROPS, BUILT, BARE, WATER, WETLAND = 10, 20, 30, 40, 50, 60, 80, 90
NODATA = 0

CLASSES: list[dict[str, Any]] = [
    {"value": TREES, "color-hint": "006400", "description": "Tree cover"},
    {"value": SHRUBS, "color-hint": "FFBB22", "description": "Shrubland"},
    {"value": GRASS, "color-hint": "FFFF4C", "description": "Grassland"},
    {"value": CROPS, "color-hint": "F096FF", "description": "Cropland"},
    {"value": BUILT, "color-hint": "FA0000", "description": "Built-up"},
    {"value": BARE, "color-hint": "B4B4B4", "description": "Bare / sparse vegetation"},
    {"value": 70, "color-hint": "F0F0F0", "description": "Snow and ice"},
    {"value": WATER, "color-hint": "0064C8", "description": "Permanent water bodies"},
    {"value": WETLAND, "color-hint": "0096A0", "description": "Herbaceous wetland"},
    {"value": 95, "color-hint": "00CF75", "description": "Mangroves"},
    {"value": 100, "color-hint": "FAE6A0", "description": "Moss and lichen"},
]

_CLASS_OF = {
    Material.LAKE: WATER,
    Material.RIVER: WATER,
    Material.CONIFER: TREES,
    Material.BROADLEAF: TREES,
    Material.MEADOW: GRASS,
    Material.DRY_GRASS: GRASS,
    Material.REED: WETLAND,
    Material.ROCK: BARE,
    Material.SAND: BARE,
    Material.ASPHALT: BUILT,
    Material.RED_ROOF: BUILT,
    Material.BRIGHT_ROOF: BUILT,
    Material.CONCRETE: BUILT,
    Material.GARDEN: GRASS,
    Material.CLEARCUT: GRASS,
    Material.TRACK: BARE,
    Material.HEATH: SHRUBS,
}


def land_cover_classes(material: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Classes, uint8, of materials of the ground, in any shape."""
    table = np.full(MATERIALS, NODATA, np.uint8)
    table[list(_CLASS_OF)] = list(_CLASS_OF.values())
    table[FIRST_CROP:] = CROPS
    return table[material]


def write_land_cover(folder: Path, world: World, ground: Ground) -> None:
    """Writes the collection: a map in longitude and latitude for every 3° square, and its item.

    Args:
        folder: Of the static catalogue.
        world: Where.
        ground: What lies there.
    """
    home = folder / LAND_COVER
    made = [_item(south, west, seen) for south, west, seen in _squares(world)]
    for item in made:
        (home / item.id).mkdir(parents=True, exist_ok=True)
        _write_map(home / item.id / item.assets["map"].href, item, world, ground)
        document = item.to_dict(include_self_link=False, transform_hrefs=False)
        document["stac_version"] = "1.0.0"
        document["links"] = [
            _link("root", "../../catalog.json"),
            _link("parent", "../collection.json"),
            _link("collection", "../collection.json"),
        ]
        (home / item.id / f"{item.id}.json").write_text(json.dumps(document, indent=2))
    (home / "collection.json").write_text(json.dumps(_collection(made), indent=2))


def _squares(world: World) -> list[tuple[int, int, Polygon]]:
    """Southern and western edge, degrees, of the maps that show the world, and what each shows."""
    area = world.lonlat(box(*world.bounds).segmentize(2000))
    west, south, east, north = area.bounds
    squares = [
        (lat, lon, area.intersection(box(lon, lat, lon + SQUARE, lat + SQUARE)))
        for lat in range(floor(south / SQUARE) * SQUARE, floor(north) + 1, SQUARE)
        for lon in range(floor(west / SQUARE) * SQUARE, floor(east) + 1, SQUARE)
    ]
    return [square for square in squares if square[2].area > 0]


def _item(south: int, west: int, seen: Polygon) -> pystac.Item:
    """Item of one map, which is cut to the world and lies on the pixels of the whole one."""
    name = f"{'NS'[south < 0]}{abs(south):02d}{'EW'[west < 0]}{abs(west):03d}"
    left, bottom, right, top = (round(edge * STEPS) for edge in seen.bounds)
    item = pystac.Item(
        f"ESA_WorldCover_10m_{YEAR}_v200_{name}",
        mapping(seen),
        list(seen.bounds),
        None,
        {
            "datetime": None,
            "start_datetime": f"{YEAR}-01-01T00:00:00Z",
            "end_datetime": f"{YEAR}-12-31T23:59:59Z",
            "grid:code": f"ESAWORLDCOVER-{name}",
            "proj:epsg": 4326,
            "esa_worldcover:product_tile": name,
            "esa_worldcover:product_version": "2.0.0",
        },
        stac_extensions=[
            f"https://stac-extensions.github.io/{extension}/schema.json"
            for extension in ("projection/v1.1.0", "grid/v1.1.0", "raster/v1.1.0")
        ]
        + ["https://stac-extensions.github.io/classification/v1.0.0/schema.json"],
        collection=LAND_COVER,
    )
    asset = pystac.Asset(
        f"{item.id}_Map.tif", "Land Cover Classes", media_type=COG_TYPE, roles=["data"]
    )
    transform = from_origin(left / STEPS, top / STEPS, 1 / STEPS, 1 / STEPS)
    asset.extra_fields = {
        "proj:shape": [top - bottom, right - left],
        "proj:transform": list(transform)[:6],
        **_MAP_FIELDS,
    }
    item.add_asset("map", asset)
    return item


_MAP_FIELDS: dict[str, Any] = {
    "raster:bands": [{"nodata": NODATA, "data_type": "uint8", "spatial_resolution": 10}],
    "classification:classes": CLASSES,
}


def _write_map(path: Path, item: pystac.Item, world: World, ground: Ground) -> None:
    fields = item.assets["map"].extra_fields
    height, width = fields["proj:shape"]
    transform = Affine(*fields["proj:transform"])
    west, north = world.ground_origin
    if world.zone.hemisphere == "S":
        north += FALSE_NORTHING_SOUTH
    classes = np.zeros((height, width), np.uint8)
    reproject(
        land_cover_classes(ground.material),
        classes,
        src_transform=from_origin(west, north, 10, 10),
        src_crs=f"EPSG:{world.zone.epsg}",
        dst_transform=transform,
        dst_crs="EPSG:4326",
        resampling=Resampling.nearest,
        init_dest_nodata=True,
        src_nodata=NODATA,
        dst_nodata=NODATA,
        num_threads=2,
    )
    options = {
        "driver": "COG",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": "uint8",
        "crs": "EPSG:4326",
        "transform": transform,
        "nodata": NODATA,
        "blocksize": 512,
        "compress": "deflate",
        "level": 1,
        "overview_resampling": "nearest",
    }
    with rasterio.open(path, "w", **options) as file:
        file.write(classes, 1)


def _collection(made: list[pystac.Item]) -> dict[str, Any]:
    boxes = np.array([item.bbox for item in made])
    asset = {"type": COG_TYPE, "roles": ["data"], "title": "Land Cover Classes", **_MAP_FIELDS}
    return {
        "type": "Collection",
        "id": LAND_COVER,
        "stac_version": "1.0.0",
        "title": "ESA WorldCover (demonstration)",
        "description": "Land cover of a landscape that does not exist, shaped like ESA WorldCover.",
        "license": "CC0-1.0",
        "providers": [{"name": "Demonstration world", "roles": ["producer", "licensor"]}],
        "extent": {
            "spatial": {"bbox": [[*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]]},
            "temporal": {"interval": [[f"{YEAR}-01-01T00:00:00Z", f"{YEAR}-12-31T23:59:59Z"]]},
        },
        "item_assets": {"map": asset},
        "links": [
            _link("root", "../catalog.json"),
            _link("parent", "../catalog.json"),
            {
                "rel": "license",
                "href": "https://creativecommons.org/publicdomain/zero/1.0/",
                "type": "text/html",
                "title": "CC0 1.0",
            },
            *(_link("item", f"./{item.id}/{item.id}.json") for item in made),
        ],
    }


def _link(rel: str, href: str) -> dict[str, str]:
    kind = "application/geo+json" if rel == "item" else "application/json"
    return {"rel": rel, "href": href, "type": kind}
