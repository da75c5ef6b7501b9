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
