"""STAC collections and items of the demonstration world, shaped like Planetary Computer's."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pystac
from shapely.geometry import Polygon, mapping

from data_catalog.demo_world.scenes import Acquisition, Extent, World
from data_catalog.grid import FALSE_NORTHING_SOUTH

COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
BASELINE = "05.10"

# Asset key: metres, common name, title, centre and width in micrometres.
SENTINEL2_BANDS: dict[str, tuple[int, str | None, str, float, float]] = {
    "B01": (60, "coastal", "Band 1 - Coastal aerosol - 60m", 0.443, 0.027),
    "B02": (10, "blue", "Band 2 - Blue - 10m", 0.49, 0.098),
    "B03": (10, "green", "Band 3 - Green - 10m", 0.56, 0.045),
    "B04": (10, "red", "Band 4 - Red - 10m", 0.665, 0.038),
    "B05": (20, "rededge", "Band 5 - Vegetation red edge 1 - 20m", 0.704, 0.019),
    "B06": (20, "rededge", "Band 6 - Vegetation red edge 2 - 20m", 0.74, 0.018),
    "B07": (20, "rededge", "Band 7 - Vegetation red edge 3 - 20m", 0.783, 0.028),
    "B08": (10, "nir", "Band 8 - NIR - 10m", 0.842, 0.145),
    "B8A": (20, "rededge", "Band 8A - Vegetation red edge 4 - 20m", 0.865, 0.033),
    "B09": (60, None, "Band 9 - Water vapor - 60m", 0.945, 0.026),
    "B11": (20, "swir16", "Band 11 - SWIR (1.6) - 20m", 1.61, 0.143),
    "B12": (20, "swir22", "Band 12 - SWIR (2.2) - 20m", 2.19, 0.242),
}

# Asset key: Sentinel-2's nearest band, number in file names, title, centre and width in µm.
LANDSAT_BANDS: dict[str, tuple[str, int, str, float, float]] = {
    "coastal": ("B01", 1, "Coastal/Aerosol Band", 0.44, 0.02),
    "blue": ("B02", 2, "Blue Band", 0.48, 0.06),
    "green": ("B03", 3, "Green Band", 0.56, 0.06),
    "red": ("B04", 4, "Red Band", 0.65, 0.04),
    "nir08": ("B8A", 5, "Near Infrared Band 0.8", 0.87, 0.03),
    "swir16": ("B11", 6, "Short-wave Infrared Band 1.6", 1.61, 0.09),
    "swir22": ("B12", 7, "Short-wave Infrared Band 2.2", 2.2, 0.19),
}

_EXTENSION = "https://stac-extensions.github.io/"
_S2_EXTENSIONS = [f"{_EXTENSION}{name}/v1.0.0/schema.json" for name in ("eo", "sat", "projection")]
_LANDSAT_EXTENSIONS = [
    *(f"{_EXTENSION}{name}/v1.0.0/schema.json" for name in ("raster", "eo", "view", "projection")),
    "https://landsat.usgs.gov/stac/landsat-extension/v1.1.1/schema.json",
    f"{_EXTENSION}classification/v1.0.0/schema.json",
]
_PLATFORMS = {"S2A": "Sentinel-2A", "S2B": "Sentinel-2B", "LC08": "landsat-8", "LC09": "landsat-9"}


def scene_epsg(world: World, sensor: str) -> int:
    """EPSG code of a sensor's scenes: Landsat keeps the northern zone's south of the equator."""
    return 32600 + world.zone.number if sensor == "landsat-c2-l2" else world.zone.epsg


def scene_north(world: World, sensor: str, extent: Extent) -> int:
    """Northing of a scene's first row in its own projection."""
    false = world.zone.hemisphere == "S" and sensor == "sentinel-2-l2a"
    return extent.north + (FALSE_NORTHING_SOUTH if false else 0)


def affine(west: float, north: float, size: float) -> list[float]:
    """The six numbers of ``proj:transform``."""
    return [float(size), 0.0, float(west), 0.0, float(-size), float(north)]


def sentinel2_item(
    world: World,
    acquisition: Acquisition,
    extent: Extent,
    seen: Polygon,
    cover: dict[str, float],
) -> pystac.Item:
    """Item of a Sentinel-2 granule, with its assets at paths relative to the item.

    Args:
        world: Where.
        acquisition: When and by which satellite.
        extent: Pixels.
        seen: The part inside the swath, metres from the equator.
        cover: Percentages to report: cloud, shadow, water, vegetation, bare, nodata.
    """
    taken = acquisition.time.strftime("%Y%m%dT%H%M%S")
    made_at = (acquisition.time + timedelta(hours=3, minutes=33)).replace(microsecond=0)
    made = made_at.strftime("%Y%m%dT%H%M%S")
    satellite, orbit = acquisition.platform, f"R{acquisition.track:03d}"
    short = f"{satellite}_MSIL2A_{taken}"
    number, operated = f"N{BASELINE}", f"{satellite}_OPER_MSI_L2A"
    absolute_orbit = f"A{38000 + acquisition.time.timetuple().tm_yday:06d}"
    north = scene_north(world, acquisition.sensor, extent)
    item = _item(
        world,
        f"{short}_{orbit}_T{extent.name}_{made}",
        acquisition,
        seen,
        _S2_EXTENSIONS,
        {
            "platform": _PLATFORMS[satellite],
            "proj:epsg": scene_epsg(world, acquisition.sensor),
            "instruments": ["msi"],
            "constellation": "Sentinel 2",
            "eo:cloud_cover": cover["cloud"],
            "sat:orbit_state": "descending",
            "sat:relative_orbit": acquisition.track,
            "s2:mgrs_tile": extent.name,
            "s2:granule_id": f"{operated}_TL_2BPS_{made}_{absolute_orbit}_T{extent.name}_{number}",
            "s2:datatake_id": f"G{satellite}_{taken}_{absolute_orbit[1:]}_{number}",
            "s2:datastrip_id": f"{operated}_DS_2BPS_{made}_S{taken}_{number}",
            "s2:product_uri": (
                f"{short}_{number.replace('.', '')}_{orbit}_T{extent.name}_{made}.SAFE"
            ),
            "s2:product_type": "S2MSI2A",
            "s2:datatake_type": "INS-NOBS",
            "s2:generation_time": made_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "s2:processing_baseline": BASELINE,
            "s2:nodata_pixel_percentage": cover["nodata"],
            "s2:cloud_shadow_percentage": cover["shadow"],
            "s2:water_percentage": cover["water"],
            "s2:vegetation_percentage": cover["vegetation"],
            "s2:not_vegetated_percentage": cover["bare"],
            "s2:mean_solar_zenith": 28.6,
            "s2:mean_solar_azimuth": 148.2,
        },
    )
    for key, (size, name, title, centre, width) in SENTINEL2_BANDS.items():
        band = {
            "name": key,
            "common_name": name,
            "center_wavelength": centre,
            "full_width_half_max": width,
        }
        band = {field: value for field, value in band.items() if value is not None}
        file = f"T{extent.name}_{taken}_{key}_{size}m.tif"
        _add_band(item, key, file, title, extent, north, size, {"eo:bands": [band]})
    file = f"T{extent.name}_{taken}_SCL_20m.tif"
    _add_band(item, "SCL", file, "Scene classfication map (SCL)", extent, north, 20, {})
    return item


def landsat_item(
    world: World,
    acquisition: Acquisition,
    extent: Extent,
    seen: Polygon,
    cover: dict[str, float],
) -> pystac.Item:
    """Item of a Landsat scene; arguments and asset paths as for Sentinel-2."""
    day = acquisition.time.strftime("%Y%m%d")
    made = (acquisition.time + timedelta(days=3)).strftime("%Y%m%d")
    path, row = extent.name[:3], extent.name[3:]
    satellite = acquisition.platform
    north = scene_north(world, acquisition.sensor, extent)
    scene = (
        f"L{satellite[1]}{int(satellite[2:])}{path}{row}{acquisition.time.strftime('%Y%j')}LGN00"
    )
    item = _item(
        world,
        f"{satellite}_L2SP_{path}{row}_{day}_02_T1",
        acquisition,
        seen,
        _LANDSAT_EXTENSIONS,
        {
            "gsd": 30,
            "platform": _PLATFORMS[satellite],
            "proj:epsg": scene_epsg(world, acquisition.sensor),
            "proj:shape": [extent.height // 30, extent.width // 30],
            "proj:transform": affine(extent.west, north, 30),
            "instruments": ["oli", "tirs"],
            "created": (acquisition.time + timedelta(days=4)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "description": "Landsat Collection 2 Level-2",
            "eo:cloud_cover": cover["cloud"],
            "view:off_nadir": 0,
            "view:sun_azimuth": 146.0,
            "view:sun_elevation": 60.4,
            "landsat:scene_id": scene,
            "landsat:wrs_path": path,
            "landsat:wrs_row": row,
            "landsat:wrs_type": "2",
            "landsat:correction": "L2SP",
            "landsat:cloud_cover_land": cover["cloud"],
            "landsat:collection_number": "02",
            "landsat:collection_category": "T1",
        },
    )
    product = f"{satellite}_L2SP_{path}{row}_{day}_{made}_02_T1"
    for key, (_, number, title, centre, width) in LANDSAT_BANDS.items():
        extra = {
            "eo:bands": [
                {
                    "name": f"OLI_B{number}",
                    "common_name": key,
                    "center_wavelength": centre,
                    "full_width_half_max": width,
                }
            ],
            "raster:bands": [
                {
                    "scale": 2.75e-05,
                    "nodata": 0,
                    "offset": -0.2,
                    "data_type": "uint16",
                    "spatial_resolution": 30,
                }
            ],
        }
        asset = pystac.Asset(f"{product}_SR_B{number}.TIF", title, media_type=COG_TYPE)
        asset.roles, asset.extra_fields = ["data", "reflectance"], extra
        item.add_asset(key, asset)
    quality = pystac.Asset(
        f"{product}_QA_PIXEL.TIF", "Pixel Quality Assessment Band", media_type=COG_TYPE
    )
    quality.roles = ["cloud", "cloud-shadow", "snow-ice", "water-mask"]
    quality.extra_fields = {
        "raster:bands": [
            {"unit": "bit index", "nodata": 1, "data_type": "uint16", "spatial_resolution": 30}
        ]
    }
    item.add_asset("qa_pixel", quality)
    return item


def _item(
    world: World,
    item_id: str,
    acquisition: Acquisition,
    seen: Polygon,
    extensions: list[str],
    properties: dict[str, Any],
) -> pystac.Item:
    footprint = world.lonlat(seen)
    return pystac.Item(
        item_id,
        mapping(footprint),
        list(footprint.bounds),
        acquisition.time,
        properties,
        stac_extensions=list(extensions),
        collection=acquisition.sensor,
    )


def _add_band(
    item: pystac.Item,
    key: str,
    file: str,
    title: str,
    extent: Extent,
    north: int,
    size: int,
    extra: dict[str, Any],
) -> None:
    asset = pystac.Asset(file, title, media_type=COG_TYPE, roles=["data"])
    asset.extra_fields = {
        "gsd": float(size),
        "proj:bbox": [
            float(extent.west),
            float(north - extent.height),
            float(extent.west + extent.width),
            float(north),
        ],
        "proj:shape": [extent.height // size, extent.width // size],
        "proj:transform": affine(extent.west, north, size),
        **extra,
    }
    item.add_asset(key, asset)


def collection_document(sensor: str, item_files: list[Path]) -> dict[str, Any]:
    """A sensor's collection over the items in some files.

    Args:
        sensor: ID of the collection.
        item_files: Each in a folder of its own below the collection's.
    """
    found = [json.loads(file.read_text()) for file in item_files]
    boxes = np.array([item["bbox"] for item in found])
    times = sorted(item["properties"]["datetime"] for item in found)
    family = "Sentinel-2 Level-2A" if sensor == "sentinel-2-l2a" else "Landsat Collection 2 Level-2"
    return {
        "type": "Collection",
        "id": sensor,
        "stac_version": "1.0.0",
        "title": f"{family} (demonstration)",
        "description": f"Scenes of a landscape that does not exist, shaped like {family}.",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [[*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]]},
            "temporal": {"interval": [[times[0], times[-1]]]},
        },
        "links": [
            {"rel": "root", "href": "../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
            *(
                {
                    "rel": "item",
                    "href": f"./{file.parent.name}/{file.name}",
                    "type": "application/geo+json",
                }
                for file in item_files
            ),
        ],
    }


def catalogue_document(collections: list[str]) -> dict[str, Any]:
    """The root of the static catalogue."""
    return {
        "type": "Catalog",
        "id": "demonstration-world",
        "stac_version": "1.0.0",
        "title": "Demonstration world",
        "description": "A landscape that does not exist, as Sentinel-2 and Landsat see it.",
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            *(
                {"rel": "child", "href": f"./{one}/collection.json", "type": "application/json"}
                for one in collections
            ),
        ],
    }
