from pathlib import Path

from published_world import SENSOR, index, publish_segment, segment_index, tiles

from data_catalog.catalogue import MODELS, Catalogue
from data_catalog.demo_world.scenes import World
from data_catalog.demo_world.world import build_world, world_area
from data_catalog.grid import Tile, Zone
from data_catalog.ingest import ingest_block
from data_catalog.ingest import publish_segment as publish_planned
from data_catalog.planning import plan_ingest
from data_catalog.training import known_tiles, plan_training
from rshash.features import make_extractor
from rshash.mrhash_settings import MrHashSettings

S2, LANDSAT = "sentinel-2-l2a", "landsat-c2-l2"
WORLD = World(tiles=3)


def ingest(catalogue: Catalogue, source: Path, sensor: str, **options) -> str:
    plan = plan_ingest(catalogue, str(source), sensor, world_area(WORLD), "2024", **options)
    for block_id in plan.block_ids:
        ingest_block(plan.save(catalogue), block_id)
    return publish_planned(catalogue, plan)


def test_a_model_derives_from_the_segments_that_it_was_trained_on(tmp_path: Path) -> None:
    source = build_world(tmp_path / "world", 1, WORLD)
    catalogue = Catalogue.create(tmp_path / "catalogue")
    ingest(catalogue, source, S2, bands=["nir"])
    ingest(catalogue, source, S2, tile_size=3840)
    used = {ingest(catalogue, source, sensor) for sensor in (S2, LANDSAT)}
    extractors = {
        sensor: make_extractor({"kind": "mosaiks", "bands": ["red", "green"], "features": 8})
        for sensor in (S2, LANDSAT)
    }
    settings = MrHashSettings(bits=16, clusters=2, latent=2, hashing_epochs=1)
    training = plan_training(catalogue, extractors, lambda _: settings, WORLD.tile_size)
    model_id = training.publish(training.run())
    links = catalogue.item(MODELS, model_id).get_links("derived_from")
    assert {Path(str(link.target)).stem for link in links} == used


def test_tiles_are_known_from_all_segments_whether_clearly_seen_or_not(tmp_path: Path) -> None:
    catalogue = Catalogue.create(tmp_path / "catalogue")
    assert known_tiles(catalogue, SENSOR, 1920) == set()
    clouded = index(tiles(8)[5:])
    clouded["state"] = "invalid"
    larger = [Tile(Zone(32, "N"), 20 + i, 300, 19200) for i in range(2)]
    for name, frame in (("one", index(tiles(6))), ("two", clouded), ("three", index(larger))):
        publish_segment(catalogue, name, frame)
    segments = catalogue.items(f"tiles-{SENSOR}")
    every = {one for item in segments for one in segment_index(catalogue, item)["tile_id"]}
    for size, count in ((1920, 8), (19200, 2), (960, 0)):
        known = known_tiles(catalogue, SENSOR, size)
        assert known == {one for one in every if one.startswith(f"UTM{size}-")}
        assert len(known) == count
