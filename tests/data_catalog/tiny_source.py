"""A static STAC catalogue of a few tiny scenes with known pixels, made in code."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.transform import from_origin

SCL_CLEAR, SCL_CLOUD = 4, 9
S2_KEYS = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11"}


class TinySource:
    """Collects scenes; ``write`` makes the catalogue's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items: list[pystac.Item] = []

    def scene(
        self,
        scene_id: str,
        collection: str,
        epsg: int,
        west: int,
        north: int,
        assets: dict[str, tuple[NDArray[Any], int]],
        moment: datetime = datetime(2024, 6, 18, 10, 16, tzinfo=UTC),
        nodata: float = 0,
        **properties: Any,
    ) -> pystac.Item:
        """Adds a scene: every asset's values and metres per pixel, all from one corner."""
        folder = self.folder / collection / scene_id
        folder.mkdir(parents=True, exist_ok=True)
        (values, resolution), *_ = assets.values()
        height, width = values.shape
        square = shapely.box(west, north - height * resolution, west + width * resolution, north)
        unproject = Transformer.from_crs(epsg, 4326, always_xy=True).transform
        ring = shapely.segmentize(square, 1000)
        area = shapely.transform(ring, lambda xy: np.stack(unproject(*xy.T), 1))
        properties = {"proj:epsg": epsg, **{k.replace("__", ":"): v for k, v in properties.items()}}
        item = pystac.Item(
            scene_id, shapely.geometry.mapping(area), list(area.bounds), moment, properties
        )
        for key, (values, resolution) in assets.items():
            write_cog(folder / f"{key}.tif", values, epsg, west, north, resolution, nodata)
            href = f"./{key}.tif"
            item.add_asset(key, pystac.Asset(href, media_type=pystac.MediaType.COG))
        item.collection_id = collection
        self.items.append(item)
        return item

    def sentinel_2(
        self,
        scene_id: str,
        epsg: int,
        west: int,
        north: int,
        bands: dict[str, tuple[NDArray[Any], int]],
        scl: NDArray[Any],
        moment: datetime = datetime(2024, 6, 18, 10, 16, tzinfo=UTC),
        baseline: str = "05.11",
        **properties: Any,
    ) -> pystac.Item:
        """Adds a Sentinel-2 scene as Planetary Computer writes it; bands by asset key."""
        tile = f"{epsg % 100}XYZ"
        stamp = moment.strftime("%Y%m%dT%H%M%S")
        known = {
            "platform": "Sentinel-2B",
            "s2__mgrs_tile": tile,
            "s2__processing_baseline": baseline,
            "s2__datatake_id": f"GS2B_{stamp}_038043_N{baseline}",
            "s2__generation_time": "2024-06-18T13:48:59Z",
            **properties,
        }
        assets = {**bands, "SCL": (scl, 20)}
        collection = "sentinel-2-l2a"
        return self.scene(scene_id, collection, epsg, west, north, assets, moment, **known)

    def sentinel_1(
        self,
        scene_id: str,
        epsg: int,
        west: int,
        north: int,
        bands: dict[str, NDArray[np.float32]],
        moment: datetime = datetime(2024, 6, 18, 5, 25, tzinfo=UTC),
        **properties: Any,
    ) -> pystac.Item:
        """Adds a slice of Sentinel-1 RTC as Planetary Computer writes it: power by asset key."""
        known = {
            "platform": "SENTINEL-1A",
            "s1__datatake_id": "425458",
            "sat__orbit_state": "descending",
            "sar__instrument_mode": "IW",
            **properties,
        }
        item = self.scene(
            scene_id,
            "sentinel-1-rtc",
            epsg,
            west,
            north,
            {key: (values, 10) for key, values in bands.items()},
            moment,
            nodata=-32768,
            **known,
        )
        for asset in item.assets.values():
            asset.extra_fields["raster:bands"] = [{"nodata": -32768, "data_type": "float32"}]
        return item

    def write(self) -> Path:
        """Writes ``catalog.json`` and all below it; returns its path."""
        catalog = pystac.Catalog("tiny", "Scenes of a test")
        for name in dict.fromkeys(str(item.collection_id) for item in self.items):
            boxes = np.array([item.bbox for item in self.items if item.collection_id == name])
            within = [*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]
            extent = pystac.Extent(
                pystac.SpatialExtent([within]),
                pystac.TemporalExtent([[datetime(2015, 1, 1, tzinfo=UTC), None]]),
            )
            collection = pystac.Collection(name, name, extent)
            catalog.add_child(collection)
            for item in self.items:
                if item.collection_id == name:
                    collection.add_item(item)
        catalog.normalize_hrefs(str(self.folder))
        for item in self.items:
            for key, asset in item.assets.items():
                asset.href = f"./{key}.tif"
        catalog.save(pystac.CatalogType.SELF_CONTAINED)
        return self.folder / "catalog.json"


def write_cog(
    path: Path,
    values: NDArray[Any],
    epsg: int,
    west: int,
    north: int,
    resolution: int,
    nodata: float = 0,
) -> None:
    """Writes a cloud-optimised GeoTIFF, tiled, with overviews."""
    height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="COG",
        height=height,
        width=width,
        count=1,
        dtype=values.dtype,
        crs=f"EPSG:{epsg}",
        transform=from_origin(west, north, resolution, resolution),
        nodata=nodata,
        compress="deflate",
        blocksize=256,
    ) as file:
        file.write(values, 1)


def noise(
    shape: tuple[int, int], seed: int, low: int = 1, high: int = 12_000
) -> NDArray[np.uint16]:
    """Numbers without any structure: a resampled or shifted copy differs everywhere."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.uint16)
