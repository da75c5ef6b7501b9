import json
from pathlib import Path

import numpy as np
import pystac
import pytest

from data_catalog.errors import SensorError
from data_catalog.sensors import (
    EXTRA_SENSORS,
    get_sensor,
    resolve_band,
    resolve_mask,
)

S2, LANDSAT = get_sensor("sentinel-2-l2a"), get_sensor("landsat-c2-l2")


def real_items(shared: Path, pattern: str) -> list[pystac.Item]:
    paths = sorted((shared / "data" / "stac-items").glob(pattern))
    contents = [json.loads(path.read_text()) for path in paths if path.stem != "collection"]
    assert contents
    return [pystac.Item.from_dict(content, migrate=False) for content in contents]


@pytest.mark.parametrize(
    "pattern", ["planetary-computer/sentinel-2-l2a/*.json", "earth-search/sentinel-2*/*.json"]
)
def test_bands_of_real_sentinel_2_items(shared: Path, pattern: str) -> None:
    for item in real_items(shared, pattern):
        for name, band in S2.bands.items():
            found = resolve_band(item, S2, name)
            assert found.href == item.assets[found.key].href
            gsd = item.assets[found.key].extra_fields["gsd"]
            assert gsd == band.resolution, (item.id, name)
        assert resolve_mask(item, S2.mask).key.lower() == "scl"


def test_the_offset_of_real_sentinel_2_items(shared: Path) -> None:
    seen = set()
    for item in real_items(shared, "*/sentinel-2*/*.json"):
        found = resolve_band(item, S2, "red")
        baseline = item.properties["s2:processing_baseline"]
        applied = item.properties.get("earthsearch:boa_offset_applied", False)
        assert found.scale == 1e-4
        assert found.offset == (-0.1 if baseline >= "04.00" and not applied else 0.0), item.id
        seen.add((baseline >= "04.00", applied))
    assert seen == {(True, True), (True, False), (False, False)}


def test_bands_of_real_landsat_items_state_the_same_scale(shared: Path) -> None:
    for item in real_items(shared, "*/landsat-c2-l2/*.json"):
        for name in LANDSAT.bands:
            found = resolve_band(item, LANDSAT, name)
            stated = item.assets[found.key].extra_fields["raster:bands"][0]
            assert (found.scale, found.offset) == (stated["scale"], stated["offset"])
        assert resolve_mask(item, LANDSAT.mask).key == "qa_pixel"


def test_sentinel_2_classes_that_are_clear() -> None:
    assert S2.mask is not None
    clear = np.flatnonzero(S2.mask.clear(np.arange(12)))
    # Dark ground, vegetation, bare ground, water, unclassified, snow.
    assert clear.tolist() == [2, 4, 5, 6, 7, 11]


@pytest.mark.parametrize(
    ("bits", "clear"),
    [([6], True), ([6, 7], True), ([5], True), ([0], False)] + [([6, b], False) for b in range(5)],
)
def test_landsat_quality_bits(bits: list[int], clear: bool) -> None:
    assert LANDSAT.mask is not None
    word = np.array([sum(1 << bit for bit in bits)], np.uint16)
    assert LANDSAT.mask.clear(word).tolist() == [clear]


def test_an_unknown_sensor_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SensorError, match="did you mean sentinel-2-l2a"):
        get_sensor("sentinel-2-l1a")


def test_an_unknown_band_is_refused_with_the_bands_there_are() -> None:
    with pytest.raises(SensorError, match=r"did you mean swir16.*its bands are coastal, blue"):
        S2.check_bands(["red", "swir1"])
    with pytest.raises(SensorError, match="once"):
        S2.check_bands(["red", "red"])
    with pytest.raises(SensorError, match="once"):
        S2.check_bands([])
    assert S2.check_bands(None) == ("blue", "green", "red", "nir", "swir16", "swir22")


def test_a_scene_without_the_asset_is_named() -> None:
    from datetime import UTC, datetime

    item = pystac.Item("scene", None, None, datetime(2024, 1, 1, tzinfo=UTC), {})
    with pytest.raises(SensorError, match="scene has no asset B04 or red, and none that calls itself red: it has none"):
        resolve_band(item, S2, "red")


def test_attribution_names_the_years() -> None:
    assert S2.attribution_of([2024, 2023, 2024]).endswith("[2023, 2024]")
    assert "U.S. Geological Survey" in LANDSAT.attribution_of([2024])


def test_sensors_can_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "more.toml"
    path.write_text(
        """
        [airborne]
        title = "Airborne camera"
        resolution = 20
        scale = 0.00390625
        bands.red = { keys = ["image"], resolution = 20 }
        """
    )
    monkeypatch.setenv(EXTRA_SENSORS, str(path))
    with pytest.raises(SensorError, match="landsat-c2-l2, sentinel-1-rtc, airborne"):
        get_sensor("spaceborne")
    sensor = get_sensor("airborne")
    assert (sensor.default_bands, sensor.mask, sensor.collection("any")) == (
        ("red",),
        None,
        "airborne",
    )


@pytest.mark.parametrize(
    "content",
    [
        "[airborne]\ntitle = 'x'",
        "nonsense",
        "[a]\ntitle='x'\nresolution=10\nbands.red={keys=['r'],resolution=15}",
        "[a]\ntitle='x'\nresolution=10\nbands.red={keys=['r'],resolution=10}\nscael=1",
    ],
)
def test_a_bad_sensor_file_is_refused(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(content)
    monkeypatch.setenv(EXTRA_SENSORS, str(path))
    with pytest.raises(SensorError, match=EXTRA_SENSORS):
        get_sensor("sentinel-2-l2a")
