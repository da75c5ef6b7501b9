"""Places and pixels: the tile grid, STAC search, reading, publishing and querying."""
