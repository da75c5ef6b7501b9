import random
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from published_world import BANDS, SENSOR, index, publish_segment, segment_index, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.considered import considered_scenes, told_before
from data_catalog.segments import published_bands

TILES = tiles(12)
SCENES = [f"S2A_{number}" for number in range(8)]
REASONS = ["cloudy: 0.4 clear", "not observed: no scene has pixels here", "unreadable: timeout"]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Segments of some tiles in any state, which have considered some of the scenes."""
    catalogue = Catalogue.create(tmp_path_factory.mktemp("considered") / "catalogue")
    chance = random.Random(0)
    for number in range(6):
        some = chance.sample(TILES[:-1], 8)
        frame = index(some)
        frame["considered_scenes"] = [chance.sample(SCENES, chance.randint(1, 3)) for _ in some]
        frame["clear_fraction"] = np.float32([chance.choice([0.2, 0.6, 0.7]) for _ in some])
        lost = [chance.random() < 0.6 for _ in some]
        frame["reason"] = [chance.choice(REASONS) if one else None for one in lost]
        frame.loc[lost, "state"] = "invalid"
        publish_segment(catalogue, f"s{number}", frame, BANDS[: 2 + number % 2])
    return catalogue


def plainly(catalogue: Catalogue, bands: tuple[str, ...], minimum: float) -> dict[str, set[str]]:
    done: dict[str, set[str]] = {}
    for item in catalogue.items(f"tiles-{SENSOR}"):
        for row in segment_index(catalogue, item).to_dict("records"):
            if published_bands(item).issuperset(bands) and (
                row["state"] == "valid"
                or np.float32(row["clear_fraction"]) < np.float32(minimum)
                or row["reason"].startswith("not observed")
            ):
                done.setdefault(row["tile_id"], set()).update(row["considered_scenes"])
    return done


@pytest.mark.parametrize("bands", [BANDS, BANDS[:2]])
@pytest.mark.parametrize("minimum", [0.1, 0.6, 0.7, 0.9])
def test_it_is_what_all_rows_of_all_segments_tell(
    catalogue: Catalogue, bands: tuple[str, ...], minimum: float
) -> None:
    expected = plainly(catalogue, bands, minimum)
    asked = [tile.id for tile in reversed(TILES)]
    found = considered_scenes(
        catalogue,
        SENSOR,
        asked,
        SCENES[:5],
        bands=bands,
        minimum_clear=minimum,
        composite="best",
    )
    assert found.any_known
    for tile_id, group in zip(asked, found.groups, strict=True):
        assert found.scenes[group] == expected.get(tile_id, set()) & set(SCENES[:5])


def test_nothing_is_known_of_tiles_that_no_segment_tells_of(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    for held, asked, composite in (
        (catalogue, TILES[-1:], "best"),
        (catalogue, TILES, "median"),
        (Catalogue.create(tmp_path / "catalogue"), TILES, "best"),
    ):
        found = considered_scenes(
            held,
            SENSOR,
            [tile.id for tile in asked],
            SCENES,
            bands=BANDS,
            minimum_clear=0.6,
            composite=composite,
        )
        assert not found.any_known
        assert [found.scenes[group] for group in found.groups] == [frozenset()] * len(asked)


def told_plainly(
    catalogue: Catalogue, bands: tuple[str, ...], index: gpd.GeoDataFrame
) -> str | None:
    def told(frame: gpd.GeoDataFrame) -> dict[str, tuple[str, set[str]]]:
        rows = frame[frame["state"] == "invalid"].to_dict("records")
        return {row["tile_id"]: (row["reason"], set(row["considered_scenes"])) for row in rows}

    wanted = told(index)
    for item in reversed(catalogue.items(f"tiles-{SENSOR}")):
        held = told(segment_index(catalogue, item))
        if published_bands(item).issuperset(bands) and all(
            tile_id in held and held[tile_id][0] == reason and held[tile_id][1] >= scenes
            for tile_id, (reason, scenes) in wanted.items()
        ):
            return item.id
    return None


@pytest.mark.parametrize("bands", [BANDS, BANDS[:2]])
def test_what_was_told_before_is_found(catalogue: Catalogue, bands: tuple[str, ...]) -> None:
    chance, found = random.Random(0), []
    for item in catalogue.items(f"tiles-{SENSOR}"):
        whole = segment_index(catalogue, item)
        lost = whole[whole["state"] == "invalid"]
        assert told_before(catalogue, SENSOR, bands, "best", whole) is None
        for count in (1, 2, len(lost)):
            some = lost.sample(count, random_state=chance.randint(0, 99)).copy()
            other = some.copy()
            other["considered_scenes"] = [
                [*scenes, "S2A_9"] for scenes in some["considered_scenes"]
            ]
            fewer = some.copy()
            fewer["considered_scenes"] = [scenes[:1] for scenes in some["considered_scenes"]]
            for rows in (some, other, fewer, some.assign(reason="cloudy: 0.1 clear")):
                found.append(told_before(catalogue, SENSOR, bands, "best", rows))
                assert told_before(catalogue, SENSOR, bands, "median", rows) is None
                assert found[-1] == told_plainly(catalogue, bands, rows)
    assert None in found and len(set(found)) > 3
