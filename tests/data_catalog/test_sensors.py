from datetime import UTC, datetime

import numpy as np
import pystac
import pytest

from data_catalog.errors import SensorError
from data_catalog.sensors import Stored, get_sensor, resolve_band

S2, LANDSAT = get_sensor("sentinel-2-l2a"), get_sensor("landsat-c2-l2")


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
    item = pystac.Item("scene", None, None, datetime(2024, 1, 1, tzinfo=UTC), {})
    with pytest.raises(
        SensorError,
        match="scene has no asset B04 or red, and none that calls itself red: it has none",
    ):
        resolve_band(item, S2, "red")


def test_attribution_names_the_years() -> None:
    assert S2.attribution_of([2024, 2023, 2024]).endswith("[2023, 2024]")
    assert "U.S. Geological Survey" in LANDSAT.attribution_of([2024])


def test_scenes_of_other_missions_are_not_wanted() -> None:
    def scene(**properties: str) -> pystac.Item:
        known = {key.replace("__", ":"): value for key, value in properties.items()}
        return pystac.Item("scene", None, None, datetime(2024, 1, 1, tzinfo=UTC), known)

    assert LANDSAT.wants(scene(platform="LANDSAT-9"))
    assert not LANDSAT.wants(scene(platform="landsat-7"))
    assert not LANDSAT.wants(scene())
    assert S2.wants(scene(platform="Sentinel-2C"))


def test_collection_1_is_a_sensor_of_its_own_with_the_same_bands() -> None:
    again = get_sensor("sentinel-2-c1-l2a")
    assert again.collection("earth-search") == "sentinel-2-c1-l2a"
    assert S2.collection("earth-search") == S2.collection("generic") == "sentinel-2-l2a"
    same = ("bands", "mask", "stored", "default_bands", "offset_from_baseline", "attribution")
    assert all(getattr(again, name) == getattr(S2, name) for name in same)


def test_what_tiles_store() -> None:
    assert S2.stored == LANDSAT.stored == Stored("reflectance", "1", 1e-4, 0.0)
    assert get_sensor("sentinel-1-rtc").stored == Stored("gamma0", "dB", 0.001, -50.0)
