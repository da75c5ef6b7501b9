"""Pictures of tiles: all in one stretch, so that colours compare over the whole catalogue."""

from __future__ import annotations

import io
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from data_catalog.catalogue import Catalogue
from data_catalog.current_view import current_view
from data_catalog.errors import CatalogueError, QueryError
from data_catalog.observations import read_tiles
from data_catalog.pictures import TRUE_COLOUR, Stretch, in_colour, tile_picture
from data_catalog.sensors import get_sensor

FORMATS = {"webp": "image/webp", "png": "image/png"}

STRETCH_TILES = 200
"""Tiles, evenly spread over the catalogue, that set the stretch."""


class TilePictures:
    """The pixels of a sensor's current observations, as pictures."""

    def __init__(self, catalogue: Catalogue, sensor: str) -> None:
        """Reads which observations are current.

        Args:
            catalogue: Holds the observations.
            sensor: Sensor ID.
        """
        self._catalogue = catalogue
        self._sensor = sensor
        self._bands = get_sensor(sensor).picture_bands
        view = current_view(catalogue, sensor, bands=self._bands)
        observations = view.frame()[["tile_id", "segment_id", "row"]]
        self._observations = observations.set_index("tile_id", drop=False)
        self._of_one_size = max(view.sizes.values(), key=len, default=range(0))

    def __len__(self) -> int:
        """Number of tiles that have a picture."""
        return len(self._observations)

    def picture(self, tile_id: str, side: int, image_format: str) -> bytes:
        """A tile in colour.

        Args:
            tile_id: The tile.
            side: Pixels on a side.
            image_format: A key of ``FORMATS``.

        Returns:
            The picture's file.

        Raises:
            QueryError: The catalogue holds no pixels of the tile.
        """
        if tile_id not in self._observations.index:
            raise QueryError(
                f"The catalogue holds no pixels of tile {tile_id} in the bands "
                f"{', '.join(self._bands)}: ingest its area."
            )
        [pixels] = self._pixels([tile_id])
        buffer = io.BytesIO()
        tile_picture(pixels, self.stretch, side).save(buffer, image_format, quality=82)
        return buffer.getvalue()

    @cached_property
    def stretch(self) -> Stretch:
        """How pixels become colour, one for all tiles."""
        same = self._of_one_size
        chosen = np.unique(np.linspace(same.start, same.stop - 1, STRETCH_TILES).astype(int))
        tile_ids = self._observations.index[chosen].tolist()
        try:
            pixels = self._pixels(tile_ids)
        except CatalogueError:
            pixels = self._readable_pixels(tile_ids)
        return Stretch.of(pixels, self._bands == TRUE_COLOUR)

    def _readable_pixels(self, tile_ids: list[str]) -> NDArray[np.float32]:
        """Of those tiles that can be read: a damaged segment must not take away all pictures."""
        readable = []
        for tile_id in tile_ids:
            try:
                readable.append(self._pixels([tile_id]))
            except CatalogueError as error:
                last = error
        if not readable:
            raise last
        return np.concatenate(readable)

    def _pixels(self, tile_ids: list[str]) -> NDArray[np.float32]:
        observed = self._observations.loc[tile_ids]
        return in_colour(read_tiles(self._catalogue, self._sensor, observed, self._bands))
