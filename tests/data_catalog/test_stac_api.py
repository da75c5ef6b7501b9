"""Imagery through a STAC API as agencies run it, against the same scenes as static files."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import requests
import shapely
from fault_server import Fault, fault_server
from stac_api import load, postgresql, postgresql_programs, stac_api

from data_catalog.areas import parse_area, parse_period
from data_catalog.catalogue import Catalogue
from data_catalog.demo_world import World, build_world, world_area
from data_catalog.errors import SourceError
from data_catalog.http_server import serve_folder
from data_catalog.ingest import ingest_block, publish_segment
from data_catalog.planning import IngestPlan, plan_ingest
from data_catalog.segments import open_pixels
from data_catalog.sensors import get_sensor
from data_catalog.source_catalogue import open_source

S2, LANDSAT = "sentinel-2-l2a", "landsat-c2-l2"
WORLD = World(tiles=4)
CLONES = 600
"""Three pages of a search."""


class Sources(NamedTuple):
    static: str
    api: str


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    """Two nights of the demonstration world; the API also has clones of a scene, of 2020."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL with PostGIS is not installed (Debian: postgresql-postgis)")
    folder = tmp_path_factory.mktemp("world")
    for night in (1, 2):
        build_world(folder, night, WORLD)
    with serve_folder(folder) as files, postgresql(programs) as database:
        items = [
            as_registered(json.loads(path.read_text()), f"{files}/{path.relative_to(folder)}")
            for path in sorted(folder.glob("*/*/*.json"))
        ]
        collections = [
            with_item_assets(json.loads(path.read_text()), items)
            for path in sorted(folder.glob("*/collection.json"))
        ]
        load(database, collections, items + clones(items))
        with stac_api(database) as api:
            yield Sources(f"{files}/catalog.json", api)


def as_registered(item: dict[str, Any], address: str) -> dict[str, Any]:
    """The item with absolute addresses; links are the API's business."""
    assets = {
        key: asset | {"href": urljoin(address, asset["href"])}
        for key, asset in item["assets"].items()
    }
    return item | {"assets": assets, "links": []}


def with_item_assets(collection: dict[str, Any], items: list[dict[str, Any]]) -> dict[str, Any]:
    """The collection as large catalogues keep it: what its items' assets share is told once."""
    example = next(item for item in items if item["collection"] == collection["id"])
    shared = {
        key: {name: value for name, value in asset.items() if name != "href"}
        for key, asset in example["assets"].items()
    }
    return collection | {"item_assets": shared}


def clones(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Earlier processings of one scene, with one asset each; two hundred share each moment."""
    scene = next(item for item in items if item["collection"] == S2)
    return [
        scene
        | {
            "id": f"clone-{number:03d}",
            "properties": scene["properties"]
            | {
                "datetime": f"2020-06-0{number % 3 + 1}T10:16:00Z",
                "s2:generation_time": "2020-06-04T00:00:00Z",
            },
            "assets": {"SCL": scene["assets"]["SCL"]},
        }
        for number in range(CLONES)
    ]


WHOLE = world_area(WORLD)
WEST, SOUTH, EAST, NORTH = WHOLE.bounds
NORTH_WEST = f"{WEST},{NORTH - 0.01},{WEST + 0.005},{NORTH}"
TRIANGLE = shapely.Polygon([(WEST, NORTH), (WEST + 0.01, NORTH), (WEST, NORTH - 0.01)])
WITH_CLONES = "2020/2024"
TWO_POINTS = f"{WEST + 0.01},{NORTH - 0.01} {EAST - 0.01},{SOUTH + 0.004}"


@pytest.mark.parametrize(
    ("sensor", "area", "period", "count"),
    [
        (S2, WHOLE, "2024", 5),
        (S2, WHOLE, "2024-06", 4),
        (S2, WHOLE, "2024-06-18", 2),
        (S2, WHOLE, "2024-06-18T10:15:59Z/2024-06-20T10:06:00Z", 2),
        (S2, WHOLE, "2024-06-21/..", 1),
        (S2, WHOLE, "2023", 0),
        (S2, NORTH_WEST, "2024", 2),
        (S2, TRIANGLE, "2024-06", 1),
        (S2, TWO_POINTS, "2024", 5),
        (S2, "12,47,13,48", "2024", 0),
        (LANDSAT, WHOLE, "2024-06", 2),
        (LANDSAT, NORTH_WEST, "2024", 1),
    ],
)
def test_the_api_finds_what_the_files_hold(
    sources: Sources, sensor: str, area: str | shapely.Geometry, period: str, count: int
) -> None:
    asked = get_sensor(sensor), parse_area(area), parse_period(period)
    static, api = (open_source(address).search(*asked) for address in sources)
    assert [item.id for item in api] == [item.id for item in static]
    assert len(api) == count
    for one, other in zip(api, static, strict=True):
        assert one.properties == other.properties
        assert one.geometry == other.geometry
        assert {k: a.to_dict() for k, a in one.assets.items()} == {
            k: a.to_dict() for k, a in other.assets.items()
        }


def test_every_page_of_a_search_is_fetched(sources: Sources) -> None:
    body = {"collections": [S2], "datetime": "2020-01-01T00:00:00Z/2020-12-31T00:00:00Z"}
    page = requests.post(f"{sources.api}/search", json=body | {"limit": 250}, timeout=60).json()
    assert len(page["features"]) == 250
    assert "next" in [link["rel"] for link in page["links"]]
    for address in (sources.api, f"{sources.api}/"):
        found = open_source(address).search(get_sensor(S2), WHOLE, parse_period("2020"))
        assert sorted(item.id for item in found) == [f"clone-{n:03d}" for n in range(CLONES)]
        assert {tuple(item.assets) for item in found} == {("SCL",)}


def test_a_page_that_fails_once_is_asked_for_again(sources: Sources, tmp_path: Path) -> None:
    period = parse_period("2020")
    with fault_server(tmp_path, upstream=sources.api) as api:
        for fault in ("status", "reset"):
            api.misbehave(Fault("/search", fault, after=2, at_most=1))
            found = open_source(api.address).search(get_sensor(S2), WHOLE, period)
            assert sorted(item.id for item in found) == [f"clone-{n:03d}" for n in range(CLONES)]
            assert len(api.requests("/search")) == 4


def test_a_page_that_fails_for_ever_ends_the_run_before_anything_is_made(
    sources: Sources, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    catalogue = Catalogue.open_or_create(tmp_path / "catalogue")
    with fault_server(tmp_path / "empty", upstream=sources.api) as api:
        api.misbehave(Fault("/search", "reset", after=2, at_most=None))
        with pytest.raises(SourceError, match=f"Searching '{S2}' in {api.address}.* failed"):
            plan_ingest(catalogue, api.address, S2, WHOLE, "2020")
        assert len(api.requests("/search")) > 3
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("sensor", [S2, LANDSAT])
def test_segments_from_the_api_and_from_the_files_are_identical(
    sources: Sources, sensor: str, tmp_path: Path
) -> None:
    indexes, pixels, segments = [], [], []
    for name, address in sources._asdict().items():
        catalogue = Catalogue.create(tmp_path / name)
        planned = plan_ingest(catalogue, address, sensor, WHOLE, WITH_CLONES)
        folder = planned.save(catalogue)
        for block_id in planned.block_ids:
            assert not ingest_block(folder, block_id).failures
        segments.append(publish_segment(catalogue, IngestPlan.load(folder)))
        assert plan_ingest(catalogue, address, sensor, WHOLE, WITH_CLONES).is_empty
        segment = catalogue.root / f"tiles-{sensor}" / segments[-1]
        indexes.append(gpd.read_parquet(segment / "index.parquet"))
        pixels.append(open_pixels(segment)[:])
    assert segments[0] == segments[1]
    pd.testing.assert_frame_equal(*indexes)
    np.testing.assert_array_equal(*pixels)
    valid = indexes[0][indexes[0]["state"] == "valid"]
    assert len(valid) > len(WORLD.all_tiles) / 2
    assert pixels[0][valid["row"]].any(axis=(1, 2, 3)).all()


def test_a_collection_that_the_source_lacks_is_an_error(sources: Sources) -> None:
    elsewhere = dataclasses.replace(get_sensor(S2), collections={"default": "sentinel-9"})
    for address in sources:
        with pytest.raises(SourceError, match="'sentinel-9'"):
            open_source(address).search(elsewhere, WHOLE, parse_period("2024"))
