"""Reading one asset of one scene onto a pixel grid, over the network, in spite of its faults."""

from __future__ import annotations

import logging
import time
import warnings
from datetime import UTC, datetime
from typing import Any

import numpy as np
import odc.stac
import pystac
import rasterio
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from data_catalog.errors import ReadError
from data_catalog.grid import Zone
from data_catalog.profiles import sign
from data_catalog.redaction import redact_reader_logs, redacted
from data_catalog.sensors import SceneBand

_LOG = logging.getLogger(__name__)

# Arrays in memory have no place on the ground, and odc-stac reprojects such arrays.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

RETRY_DELAYS_S = (0.5, 2.0)

GDAL_SETTINGS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    # HTTP/2 where there is TLS: asking for it in plain HTTP makes servers answer with a warning.
    "GDAL_HTTP_VERSION": "2TLS",
    "GDAL_INGESTED_BYTES_AT_OPEN": 32768,
    "GDAL_HTTP_CONNECTTIMEOUT": 15,
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
}

Bounds = tuple[int, int, int, int]


def read_asset(
    scene_id: str,
    band: SceneBand,
    profile: str,
    zone: Zone,
    bounds: Bounds,
    resolution: int,
    *,
    nodata: int = 0,
    resampling: str = "nearest",
) -> NDArray[np.float32]:
    """Reads the part of an asset that lies in a rectangle of a zone's projection.

    Where the asset lies on the same pixel grid its numbers are copied, else they are resampled.

    Args:
        scene_id: For messages.
        band: The asset.
        profile: Of the source catalogue: says how to sign.
        zone: Gives the projection.
        bounds: West, south, east, north, metres; multiples of the resolution apart.
        resolution: Metres per pixel.
        nodata: The asset's number for "not observed", and the fill beyond its edges.
        resampling: ``nearest``, ``bilinear``, ``cubic``, ….

    Returns:
        float32 ``(y, x)``, the asset's numbers; the first row is the northernmost.

    Raises:
        ReadError: The asset cannot be read after all retries; names scene, asset and cause.
    """
    redact_reader_logs()
    geobox = _geobox(zone, bounds, resolution)
    cause = ""
    for attempt, delay in enumerate((0.0, *RETRY_DELAYS_S)):
        time.sleep(delay)
        try:
            # GDAL remembers a failed open as "no such file": a retry must not ask its cache.
            uncached = {"CPL_VSIL_CURL_NON_CACHED": _gdal_path(band.href)} if attempt else {}
            with rasterio.Env(**GDAL_SETTINGS, **uncached):
                return _load(sign(band.href, profile), geobox, nodata, resampling)
        except Exception as error:  # Whatever a reader raises, one bad scene must not end the run.
            cause = _cause(error)
            _LOG.info("%s, asset %s: attempt %d failed: %s", scene_id, band.key, attempt + 1, cause)
    raise ReadError(f"{scene_id}, asset {band.key}: {cause}")


def union_of(bounds: list[Bounds]) -> Bounds:
    """The smallest rectangle around rectangles."""
    west, south, east, north = zip(*bounds, strict=True)
    return min(west), min(south), max(east), max(north)


def window_of(inner: Bounds, outer: Bounds, resolution: int) -> tuple[slice, slice]:
    """Rows and columns of a square among the pixels of a rectangle around it."""
    left, top = (inner[0] - outer[0]) // resolution, (outer[3] - inner[3]) // resolution
    side = (inner[2] - inner[0]) // resolution
    return slice(top, top + side), slice(left, left + side)


def _cause(error: BaseException) -> str:
    # The readers chain errors: the innermost one says what happened.
    while error.__cause__ is not None:
        error = error.__cause__
    return redacted(str(error)) or type(error).__name__


def _load(href: str, geobox: GeoBox, nodata: int, resampling: str) -> NDArray[np.float32]:
    # An item of our own keeps the reader from trusting footprints and metadata that differ
    # between catalogues: the file itself says where it lies.
    footprint = geobox.extent.to_crs("EPSG:4326")
    item = pystac.Item(
        "scene", footprint.json, list(footprint.boundingbox), datetime(2000, 1, 1, tzinfo=UTC), {}
    )
    item.add_asset("band", pystac.Asset(href, media_type=pystac.MediaType.COG, roles=["data"]))
    loaded = odc.stac.load(
        [item],
        bands=["band"],
        geobox=geobox,
        groupby="id",
        dtype="float32",
        nodata=nodata,
        resampling=resampling,
        fail_on_error=True,
    )
    values: NDArray[np.float32] = loaded["band"].values[0]
    return values


def _geobox(zone: Zone, bounds: Bounds, resolution: int) -> GeoBox:
    west, south, east, north = bounds
    shape = (north - south) // resolution, (east - west) // resolution
    return GeoBox(shape, from_origin(west, north, resolution, resolution), CRS(f"EPSG:{zone.epsg}"))


def _gdal_path(href: str) -> str:
    return f"/vsicurl/{href.partition('?')[0]}"
