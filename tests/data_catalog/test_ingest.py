import json
import multiprocessing
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import zarr
from tiny_source import SCL_CLEAR, SCL_CLOUD, TinySource, noise

from data_catalog import assets, ingest
from data_catalog.catalogue import Catalogue
from data_catalog.demo_world import World, build_world, world_area
from data_catalog.errors import CatalogueError, GridError, SensorError, SourceError
from data_catalog.grid import Tile, Zone, tiles_covering
from data_catalog.http_server import serve_folder
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.observations import current_observations, read_tiles
from data_catalog.planning import IngestPlan, plan_ingest

S2 = "sentinel-2-l2a"
TILE = Tile(Zone(32, "N"), 360, 2778)
MOMENT = datetime(2024, 6, 18, 10, 16, tzinfo=UTC)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "RETRY_DELAYS_S", (0.05,))


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue.create(tmp_path / "catalogue")


@pytest.fixture
def source(tmp_path: Path) -> TinySource:
    return TinySource(tmp_path / "source")


def add_granule(
    source: TinySource, scene_id: str, days: int = 0, seed: int = 1, clear: bool = True, **more
) -> None:
    """A granule over ``TILE`` and the tile east of it."""
    west, _, _, north = TILE.bounds
    scl = np.full((156, 252), SCL_CLEAR if clear else SCL_CLOUD, np.uint8)
    bands = {"B04": (noise((312, 504), seed), 10), "B11": (noise((156, 252), seed + 1), 20)}
    moment = MOMENT + timedelta(days=days)
    corner = west - 600, north + 600
    source.sentinel_2(scene_id, TILE.zone.epsg, *corner, bands, scl, moment, **more)


def two_tiles() -> shapely.Geometry:
    east = Tile(TILE.zone, TILE.column + 1, TILE.row)
    return shapely.MultiPoint([TILE.centre, east.centre])


def plan(catalogue: Catalogue, source: TinySource, area=None, **more) -> IngestPlan:
    where = str(source.write())
    options = {"bands": ["red", "swir16"], **more}
    return plan_ingest(catalogue, where, S2, area or two_tiles(), "2024", **options)


def run(catalogue: Catalogue, planned: IngestPlan) -> str:
    folder = planned.save(catalogue)
    for block_id in planned.block_ids:
        ingest_block(folder, block_id)
    return publish_segment(catalogue, IngestPlan.load(folder))


def index_of(catalogue: Catalogue, segment_id: str) -> gpd.GeoDataFrame:
    return gpd.read_parquet(catalogue.root / f"tiles-{S2}" / segment_id / "index.parquet")


def test_from_search_to_pixels(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    planned = plan(catalogue, source)
    assert planned.summary() == {
        "scenes": 1,
        "blocks": 1,
        "tiles": 2,
        "bytes": 2 * 2 * (192**2 + 96**2) + 768**2,
    }
    segment_id = run(catalogue, planned)

    observed = current_observations(catalogue, S2)
    east = Tile(TILE.zone, TILE.column + 1, TILE.row)
    assert observed["tile_id"].tolist() == [TILE.id, east.id]
    assert set(observed["segment_id"]) == {segment_id}
    assert observed["datetime"].tolist() == [MOMENT, MOMENT]
    assert [list(s) for s in observed["source_scenes"]] == [["first"], ["first"]]
    pixels = read_tiles(catalogue, S2, observed, ["swir16", "red"])
    assert (pixels.shape, pixels.dtype) == ((2, 2, 192, 192), np.float32)
    red = (noise((312, 504), 1).astype(int) - 1000).clip(1)[60:252, 252:444]
    np.testing.assert_allclose(pixels[1, 1], red * 1e-4, rtol=1e-6)
    again = read_tiles(catalogue, S2, observed.iloc[::-1], ["red"])
    np.testing.assert_array_equal(again[:, 0], pixels[::-1, 1])


def test_the_layout_of_a_segment(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    segment_id = run(catalogue, plan(catalogue, source))
    folder = catalogue.root / f"tiles-{S2}" / segment_id
    array = zarr.open_group(folder / "pixels.zarr", mode="r", use_consolidated=False)["reflectance"]
    assert array.metadata.zarr_format == 3
    assert (array.shape, array.chunks) == ((64, 2, 192, 192), (1, 2, 192, 192))
    assert (array.shards, array.dtype) == ((64, 2, 192, 192), np.uint16)
    assert array.metadata.dimension_names == ("tile", "band", "y", "x")
    described = dict(array.attrs)
    assert described["bands"] == ["red", "swir16"]
    assert (described["scale"], described["nodata"], described["resolution"]) == (1e-4, 0, 10)

    index = index_of(catalogue, segment_id)
    assert index["row"].tolist() == [TILE.block.position(TILE), TILE.block.position(TILE) + 1]
    assert shapely.area(index.geometry[0].symmetric_difference(TILE.footprint)) < 1e-9
    metadata = pq.read_schema(folder / "index.parquet").metadata
    assert b"Contains modified Copernicus Sentinel data [2024]" in metadata[b"attribution"]
    item = catalogue.item(f"tiles-{S2}", segment_id)
    assert [k.href for k in item.links if k.rel == "derived_from"]
    assert sorted(p.name for p in folder.iterdir()) == [
        f"{segment_id}.json",
        "index.parquet",
        "pixels.zarr",
    ]
    assert not list((catalogue.root / ".plans").iterdir())


def test_nothing_is_planned_twice(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    add_granule(source, "clouds", days=1, clear=False)
    run(catalogue, plan(catalogue, source))
    again = plan(catalogue, source)
    assert again.is_empty and again.block_ids == [] and again.summary()["tiles"] == 0
    # A period or a place without any scene is nothing new either, once the area is known.
    where = str(source.write())
    later = plan_ingest(catalogue, where, S2, two_tiles(), "2025", bands=["red"])
    assert later.is_empty


def test_only_new_scenes_are_read_and_the_newest_is_current(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    first = run(catalogue, plan(catalogue, source))
    add_granule(source, "second", days=5, seed=7)
    planned = plan(catalogue, source, area=shapely.Point(TILE.centre))
    assert list(planned.scenes) == ["second"]
    second = run(catalogue, planned)
    observed = current_observations(catalogue, S2)
    assert observed["segment_id"].tolist() == [second, first]
    pixels = read_tiles(catalogue, S2, observed, ["red"])
    expected = [(noise((312, 504), seed).astype(int) - 1000).clip(1) for seed in (7, 1)]
    np.testing.assert_allclose(pixels[0, 0], expected[0][60:252, 60:252] * 1e-4, rtol=1e-6)
    np.testing.assert_allclose(pixels[1, 0], expected[1][60:252, 252:444] * 1e-4, rtol=1e-6)


def test_an_older_scene_that_comes_later_is_not_current(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "newer", days=5)
    newer = run(catalogue, plan(catalogue, source))
    add_granule(source, "older")
    run(catalogue, plan(catalogue, source))
    assert set(current_observations(catalogue, S2)["segment_id"]) == {newer}


def test_a_reprocessed_scene_replaces_its_predecessor(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "N0510", baseline="05.10")
    run(catalogue, plan(catalogue, source))
    add_granule(source, "N0511", seed=7, baseline="05.11")
    planned = plan(catalogue, source)
    assert list(planned.scenes) == ["N0511"]
    assert set(planned.scenes) == {"N0511"}
    newest = run(catalogue, planned)
    assert set(current_observations(catalogue, S2)["segment_id"]) == {newest}


def test_what_could_not_be_read_is_read_the_next_time(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    path = source.folder / S2 / "first" / "B11.tif"
    away = path.rename(path.with_suffix(".away"))
    planned = plan(catalogue, source)
    folder = planned.save(catalogue)
    report = ingest_block(folder, planned.block_ids[0])
    assert (report.valid, report.invalid) == (0, 2)
    (reason, count), *more = report.reasons.items()
    assert reason.startswith("unreadable: first, asset B11: ") and count == 2 and not more
    assert list(report.failures) == ["first"]
    first = publish_segment(catalogue, planned)
    index = index_of(catalogue, first)
    assert index["state"].tolist() == ["invalid", "invalid"]
    assert index["reason"].str.contains("first, asset B11").all()
    assert current_observations(catalogue, S2).empty

    away.rename(path)
    again = plan(catalogue, source)
    assert again.segment_id != first
    run(catalogue, again)
    assert len(current_observations(catalogue, S2)) == 2


def add_half(source: TinySource, scene_id: str, east: bool, minutes: int = 0) -> None:
    """A scene that ends, or begins, in the middle of ``TILE``."""
    west, _, _, north = TILE.bounds
    bands = {"B04": (noise((312, 156), 5), 10), "B11": (noise((156, 78), 6), 20)}
    scl = np.full((156, 78), SCL_CLEAR, np.uint8)
    corner = west - 600 + 1560 * east, north + 600
    source.sentinel_2(
        scene_id,
        TILE.zone.epsg,
        *corner,
        bands,
        scl,
        MOMENT + timedelta(minutes=minutes),
        s2__mgrs_tile=scene_id,
        s2__datatake_id="GS2B_20240618T101600_038043_N05.11",
    )


INSIDE = TILE.footprint.buffer(-0.001)


def test_a_late_scene_is_put_together_with_what_its_pass_saw_before(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_half(source, "west", east=False, minutes=1)
    run(catalogue, plan(catalogue, source, area=INSIDE, minimum_clear=0.4))
    assert current_observations(catalogue, S2)["clear_fraction"].tolist() == [0.5]
    add_half(source, "east", east=True)
    run(catalogue, plan(catalogue, source, area=INSIDE, minimum_clear=0.4))
    observed = current_observations(catalogue, S2)
    assert observed["clear_fraction"].tolist() == [1.0]
    assert set(observed["source_scenes"][0]) == {"east", "west"}
    assert plan(catalogue, source, area=INSIDE, minimum_clear=0.4).is_empty


def test_a_scene_that_failed_is_put_together_with_its_pass_the_next_time(
    catalogue: Catalogue, source: TinySource
) -> None:
    for name in ("west", "east"):
        add_half(source, name, east=name == "east")
    path = source.folder / S2 / "west" / "B04.tif"
    away = path.rename(path.with_suffix(".away"))
    run(catalogue, plan(catalogue, source, area=INSIDE))
    assert current_observations(catalogue, S2).empty
    away.rename(path)
    run(catalogue, plan(catalogue, source, area=INSIDE))
    assert current_observations(catalogue, S2)["clear_fraction"].tolist() == [1.0]


def test_a_tile_that_no_scene_sees_is_not_planned_twice(
    catalogue: Catalogue, source: TinySource
) -> None:
    west, _, _, north = TILE.bounds
    bands = {"B04": (np.zeros((312, 504), np.uint16), 10)}
    scl = np.zeros((156, 252), np.uint8)
    source.sentinel_2("blank", TILE.zone.epsg, west - 600, north + 600, bands, scl)
    options = {"bands": ["red"], "minimum_clear": 0.0}
    run(catalogue, plan(catalogue, source, **options))
    assert plan(catalogue, source, **options).is_empty


def test_a_lower_threshold_gives_cloudy_tiles_a_second_chance(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "clouds", clear=False)
    report_of = plan(catalogue, source)
    ingest_block(report_of.save(catalogue), report_of.block_ids[0])
    publish_segment(catalogue, report_of)
    assert plan(catalogue, source).is_empty
    assert not plan(catalogue, source, minimum_clear=0.0).is_empty


def test_an_interrupted_run_goes_on_where_it_stopped(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    planned = plan(catalogue, source)
    folder = planned.save(catalogue)
    with pytest.raises(CatalogueError, match="1 of 1 blocks are not read yet"):
        publish_segment(catalogue, planned)
    assert ingest_block(folder, planned.block_ids[0]).seconds > 0
    for path in source.folder.rglob("*.tif"):
        path.unlink()
    again = plan(catalogue, source)
    assert again.segment_id == planned.segment_id
    done = ingest_block(again.save(catalogue), again.block_ids[0])
    assert (done.valid, done.invalid, done.seconds) == (2, 0, 0)
    published = publish_segment(catalogue, again)
    assert publish_segment(catalogue, again) == published
    assert len(catalogue.items(f"tiles-{S2}")) == 1


def test_runs_that_follow_one_plan_read_and_publish_it_once(
    catalogue: Catalogue, source: TinySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_granule(source, "first")
    planned = plan(catalogue, source)
    folder = planned.save(catalogue)
    calls: list[str] = []

    def slowly(name: str) -> None:
        original = getattr(ingest, name)

        def call(*args):
            calls.append(name)
            threading.Event().wait(0.3)  # the other run catches up
            return original(*args)

        monkeypatch.setattr(ingest, name, call)

    slowly("read_planned_block")
    slowly("write_geoparquet")
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(ingest_block, [folder] * 2, planned.block_ids * 2))
        published = list(pool.map(publish_segment, [catalogue] * 2, [planned] * 2))
    assert [report.valid for report in reports] == [2, 2]
    assert published == [planned.segment_id] * 2
    assert calls == ["read_planned_block", "write_geoparquet"]
    assert not list((catalogue.root / ".plans").iterdir())


@pytest.mark.parametrize("damage", ["shard lost", "shard cut off", "pixels lost"])
def test_what_a_crash_damaged_is_not_published_and_is_read_anew(
    catalogue: Catalogue, source: TinySource, damage: str
) -> None:
    add_granule(source, "first")
    planned = plan(catalogue, source)
    ingest_block(planned.save(catalogue), planned.block_ids[0])
    pixels = catalogue.root / f"tiles-{S2}" / planned.segment_id / "pixels.zarr"
    if damage == "shard cut off":
        for path in (pixels / "reflectance" / "c").rglob("0"):
            if path.is_file():
                path.write_bytes(b"")
    else:
        shutil.rmtree(pixels / "reflectance" / "c" if damage == "shard lost" else pixels)
    with pytest.raises(CatalogueError, match="ingest again"):
        publish_segment(catalogue, planned)
    assert catalogue.collections() == []
    run(catalogue, plan(catalogue, source))
    observed = current_observations(catalogue, S2)
    assert not np.isnan(read_tiles(catalogue, S2, observed, ["red"])).any()


def _ingest(folder: Path, block_id: str) -> int:
    return ingest_block(folder, block_id).valid


def test_processes_write_blocks_of_one_segment_side_by_side(
    catalogue: Catalogue, source: TinySource
) -> None:
    west, _, _, north = TILE.bounds
    side = 12 * 192
    red = noise((side, side), 3)
    source.sentinel_2(
        "wide",
        TILE.zone.epsg,
        west,
        north,
        {"B04": (red, 10)},
        np.full((side // 2, side // 2), SCL_CLEAR, np.uint8),
    )
    tiles = [Tile(TILE.zone, TILE.column + i, TILE.row - j) for i in range(12) for j in range(12)]
    area = shapely.MultiPoint([tile.centre for tile in tiles])
    planned = plan(catalogue, source, area=area, bands=["red"])
    folder = planned.save(catalogue)
    assert len(planned.block_ids) >= 4
    jobs = [(folder, block_id) for block_id in planned.block_ids]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.starmap_async(_ingest, jobs[::2])
        here = [_ingest(*job) for job in jobs[1::2]]
        assert sum(there.get(120)) + sum(here) == 144
    publish_segment(catalogue, planned)
    observed = current_observations(catalogue, S2)
    pixels = read_tiles(catalogue, S2, observed, ["red"])
    by_id = dict(zip(observed["tile_id"], pixels[:, 0], strict=True))
    for tile in tiles:
        x, y = 192 * (tile.column - TILE.column), 192 * (TILE.row - tile.row)
        expected = (red[y : y + 192, x : x + 192].astype(int) - 1000).clip(1) * 1e-4
        np.testing.assert_allclose(by_id[tile.id], expected, rtol=1e-6)


def test_tiles_on_both_sides_of_the_antimeridian(catalogue: Catalogue, source: TinySource) -> None:
    # Two granules as deep into their zones as the lattice brings them over 180°.
    for scene_id, zone, lon in (("east", Zone(60, "S"), 179.97), ("west", Zone(1, "S"), -179.97)):
        easting, northing = zone.project(lon, -16.9)
        corner = int(easting) // 60 * 60 - 3000, (int(northing) // 60) * 60 + 40 + 3000
        bands = {"B04": (noise((600, 600), 4), 10)}
        scl = np.full((300, 300), SCL_CLEAR, np.uint8)
        source.sentinel_2(scene_id, zone.epsg, *corner, bands, scl)
    planned = plan(catalogue, source, area="179.975,-16.905,-179.975,-16.895", bands=["red"])
    run(catalogue, planned)
    observed = current_observations(catalogue, S2)
    valid = {tile_id.split("_")[0] for tile_id in observed["tile_id"]}
    assert valid == {"UTM1920-60S", "UTM1920-01S"}
    wanted = {tile.id for tile in tiles_covering(shapely.box(179.975, -16.905, 180.025, -16.895))}
    assert set(observed["tile_id"]) == wanted


def test_no_signature_is_stored(
    catalogue: Catalogue, source: TinySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_granule(source, "first")
    add_granule(source, "broken", days=1)
    signed = []

    def sign(href: str, profile: str) -> str:
        signed.append(href)
        return href.replace(address, f"{address}") + "?sig=SECRET"

    monkeypatch.setattr(assets, "sign", sign)
    path = source.write()
    (source.folder / S2 / "broken" / "B04.tif").unlink()
    with serve_folder(path.parent) as address:
        where = f"{address}/catalog.json"
        planned = plan_ingest(
            catalogue, where, S2, two_tiles(), "2024", bands=["red"], minimum_clear=0.5
        )
        folder = planned.save(catalogue)
        report = ingest_block(folder, planned.block_ids[0])
    assert signed and "SECRET" not in json.dumps(report.failures)
    assert list(report.failures) == ["broken"] and report.valid == 2
    stored = [p for p in catalogue.root.rglob("*") if p.is_file()]
    assert stored and not [p for p in stored if b"SECRET" in p.read_bytes()]
    publish_segment(catalogue, planned)
    assert not [p for p in catalogue.root.rglob("*") if p.is_file() and b"SECRET" in p.read_bytes()]


def test_no_password_of_the_source_is_stored_or_told(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    path = source.write()
    with serve_folder(path.parent) as address:
        private = address.replace("://", "://joe:SECRET@")
        where, options = f"{private}/catalog.json?token=SECRET", {"bands": ["red"]}
        run(catalogue, plan_ingest(catalogue, where, S2, two_tiles(), "2024", **options))
        with pytest.raises(SourceError, match=f"^{address}/catalog.json has no") as nothing:
            plan_ingest(catalogue, where, S2, "0,0,1,1", "2024", **options)
        with pytest.raises(SourceError, match=f"'{address}/none.json' cannot be read") as nowhere:
            plan_ingest(catalogue, f"{private}/none.json", S2, two_tiles(), "2024", **options)
    assert "SECRET" not in f"{nothing.value} {nowhere.value}"
    assert not [p for p in catalogue.root.rglob("*") if p.is_file() and b"SECRET" in p.read_bytes()]


def test_bad_input_is_refused_before_anything_is_read(
    catalogue: Catalogue, source: TinySource
) -> None:
    add_granule(source, "first")
    where = str(source.write())
    area = "11.5,48.1,11.6,48.2"
    with pytest.raises(SourceError, match="has no Sentinel-2 Level-2A scenes"):
        plan_ingest(catalogue, where, S2, area, "2019")
    with pytest.raises(SourceError, match="has no Sentinel-2 Level-2A scenes"):
        plan_ingest(catalogue, where, S2, "0,0,0.1,0.1", "2024")
    with pytest.raises(SensorError, match="did you mean"):
        plan_ingest(catalogue, where, "sentinel-2", area, "2024")
    with pytest.raises(SensorError, match="no band 'violet'"):
        plan_ingest(catalogue, where, S2, area, "2024", bands=["violet"])
    with pytest.raises(GridError, match="multiple of 60"):
        plan_ingest(catalogue, where, S2, area, "2024", tile_size=1000)
    with pytest.raises(CatalogueError, match="holds no plan"):
        IngestPlan.load(catalogue.root)
    assert catalogue.collections() == []


def test_a_band_that_was_not_ingested_is_named(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    run(catalogue, plan(catalogue, source, bands=["red"]))
    observed = current_observations(catalogue, S2)
    with pytest.raises(CatalogueError, match=r"holds the bands red, not swir16"):
        read_tiles(catalogue, S2, observed, ["red", "swir16"])
    # It is planned anew, because what is there does not hold it.
    assert not plan(catalogue, source, bands=["red", "swir16"]).is_empty


def test_tile_sizes_live_side_by_side(catalogue: Catalogue, source: TinySource) -> None:
    add_granule(source, "first")
    run(catalogue, plan(catalogue, source))
    point = shapely.Point(TILE.centre)
    run(catalogue, plan(catalogue, source, area=point, tile_size=960))
    assert len(current_observations(catalogue, S2)) == 3
    small = current_observations(catalogue, S2, tile_size=960)
    assert read_tiles(catalogue, S2, small, ["red"]).shape == (1, 1, 96, 96)
    with pytest.raises(CatalogueError, match="960 m and 1920 m"):
        read_tiles(catalogue, S2, current_observations(catalogue, S2), ["red"])
    assert current_observations(catalogue, S2, tile_size=3840).empty


@pytest.mark.parametrize("zone", [Zone(32, "N"), Zone(56, "S")], ids=str)
def test_two_nights_of_the_demonstration_world(
    catalogue: Catalogue, tmp_path: Path, zone: Zone
) -> None:
    world = World(zone=zone, tiles=4)
    folder = tmp_path / "world"
    with serve_folder(build_world(folder, 1, world).parent) as address:
        counts = {}
        for night in (1, 2):
            if night == 2:
                build_world(folder, 2, world)
            for sensor in (S2, "landsat-c2-l2"):
                planned = plan_ingest(
                    catalogue, f"{address}/catalog.json", sensor, world_area(world), "2024"
                )
                counts[night, sensor] = planned.summary()["tiles"]
                run(catalogue, planned)
    assert counts[1, S2] == counts[1, "landsat-c2-l2"] == 16
    assert 0 < counts[2, S2] <= 16
    fine, coarse = (
        current_observations(catalogue, S2),
        current_observations(catalogue, "landsat-c2-l2"),
    )
    fine, coarse = (frame[frame["clear_fraction"] > 0.95] for frame in (fine, coarse))
    both = sorted(set(fine["tile_id"]) & set(coarse["tile_id"]))
    red = [
        read_tiles(catalogue, sensor, frame.set_index("tile_id").loc[both].reset_index(), ["red"])
        for sensor, frame in ((S2, fine), ("landsat-c2-l2", coarse))
    ]
    blurred = red[0][:, 0].reshape(len(both), 64, 3, 64, 3).mean((2, 4))

    def agreement(shift_y: int, shift_x: int) -> float:
        there = red[1][:, 0, 1 + shift_y : 63 + shift_y, 1 + shift_x : 63 + shift_x]
        pairs = zip(blurred[:, 1:-1, 1:-1], there, strict=True)
        return float(np.nanmedian([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))

    # One ground seen by two instruments: they agree, and best where they are said to lie.
    shifted = [agreement(*shift) for shift in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    assert agreement(0, 0) > 0.85
    assert agreement(0, 0) > max(shifted) + 0.02
    assert max(shifted) - min(shifted) < 0.1
