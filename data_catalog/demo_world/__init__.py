"""A small world that does not exist, as Sentinel-2 and Landsat see it, for demonstration."""

from data_catalog.demo_world.scenes import World
from data_catalog.demo_world.world import DEFAULT_WORLD, build_world, world_area

__all__ = ["DEFAULT_WORLD", "World", "build_world", "world_area"]
