import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_catalog.harmonise import harmonise
from data_catalog.sensors import SceneBand, get_sensor


@given(
    st.lists(st.integers(0, 65535), min_size=1, max_size=50),
    st.sampled_from([(1e-4, 0.0), (1e-4, -0.1), (2.75e-5, -0.2)]),
)
def test_reflectance_is_whole_and_zero_means_nodata_only(numbers, coefficients) -> None:
    scale, offset = coefficients
    raw = np.array(numbers, np.float32)[None]
    out = harmonise(raw, SceneBand("B04", "", scale, offset, 0), get_sensor("sentinel-2-l2a"))
    assert out.dtype == np.uint16
    np.testing.assert_array_equal(out == 0, raw == 0)
    exact = np.clip((np.array(numbers) * scale + offset) * 1e4, 1, 65535)
    seen = raw[0] != 0
    np.testing.assert_allclose(out[0][seen], exact[seen], atol=0.51)


@given(st.lists(st.floats(-1.0, 1e4, width=32), min_size=1, max_size=50))
def test_power_is_stored_as_decibels_above_a_floor(powers: list[float]) -> None:
    sensor = get_sensor("sentinel-1-rtc")
    raw = np.array([-32768.0, np.nan, *powers], np.float32)
    out = harmonise(raw, SceneBand("vv", "", 1.0, 0.0, -32768), sensor)
    assert out[:2].tolist() == [0, 0]
    stored = out[2:] * sensor.stored.scale + sensor.stored.offset
    decibels = 10 * np.log10(np.maximum(np.array(powers), 1e-30))
    np.testing.assert_allclose(stored, np.clip(decibels, -49.999, 15.535), atol=6e-4)


def test_golden_numbers() -> None:
    red = SceneBand("B04", "", 1e-4, -0.1, 0)
    numbers = np.array([0, 1, 1000, 1001, 11_000, 65_535], np.float32)
    reflectance = harmonise(numbers, red, get_sensor("sentinel-2-l2a"))
    assert reflectance.tolist() == [0, 1, 1, 1, 10_000, 64_535]
    red = SceneBand("red", "", 2.75e-5, -0.2, 0)
    numbers = np.array([0, 1, 7273, 7300, 43_636, 65_535], np.float32)
    reflectance = harmonise(numbers, red, get_sensor("landsat-c2-l2"))
    assert reflectance.tolist() == [0, 1, 1, 8, 10_000, 16_022]
    powers = np.array([-32768, -0.1, 0.0, 1e-5, 0.1, 1.0, 1e9], np.float32)
    decibels = harmonise(powers, SceneBand("vv", "", 1, 0, -32768), get_sensor("sentinel-1-rtc"))
    assert decibels.tolist() == [0, 1, 1, 1, 40_000, 50_000, 65_535]


def test_a_scene_without_nodata_has_nan_alone() -> None:
    numbers = np.array([0.0, -9999.0, np.nan, 5.0], np.float32)
    out = harmonise(numbers, SceneBand("red", "", 1e-4, 0.0), get_sensor("sentinel-2-l2a"))
    assert out.tolist() == [1, 1, 0, 5]
