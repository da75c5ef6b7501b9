"""Rasters of a few blocks, made in code, and how tests read them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rasterio
from fault_server import Fault, FaultServer
from rasterio.transform import from_origin
from rasterio.windows import Window

from data_catalog.rasters import Raster, Rasters

HEIGHT, WIDTH = 150, 200  # no multiples of a block
T = TypeVar("T")


def numbers(dtype: str, shape: tuple[int, ...] = (HEIGHT, WIDTH), seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return random.normal(0, 1e4, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, endpoint=True).astype(dtype)


def write(path: Path, values: np.ndarray, **options: Any) -> Path:
    bands = values if values.ndim == 3 else values[None]
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "crs": "EPSG:32632",
        "transform": from_origin(500_040, 5_300_020, 10, 10),
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 48,
        **options,
    }
    count, height, width = bands.shape
    profile |= {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.open(path, "w", **{k: v for k, v in profile.items() if v is not None}) as file:
        file.write(bands)
    return path


def run(job: Callable[[Rasters], Awaitable[T]]) -> T:
    """What a job makes of rasters that are opened for it alone."""

    async def alone() -> T:
        opened = Rasters()
        try:
            return await job(opened)
        finally:
            await opened.close()

    return asyncio.run(alone())


def read(href: object, window: Window | None = None) -> tuple[Raster, np.ndarray]:
    async def job(opened: Rasters) -> tuple[Raster, np.ndarray]:
        file = await opened.open(str(href), "generic")
        return file, await file.read(window or Window(0, 0, file.width, file.height))

    return run(job)


def serve(server: FaultServer, path: Path, *faults: Fault) -> str:
    """Address of a file, of a server of pytest's temporary folders; sets the faults."""
    server.misbehave(*faults)
    return f"{server.address}/{path.parent.name}/{path.name}"
