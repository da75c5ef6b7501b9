"""Every real record at hand resolves to the right assets, numbers, mask and projection."""

from pathlib import Path

import pystac
import pytest
from real_items import SENSORS, item_table, real_items, table_in_docs

from data_catalog.errors import SensorError
from data_catalog.scenes import newest_processing, pass_of, scene_epsg
from data_catalog.sensors import get_sensor, resolve_band, resolve_mask

S2_BY_NUMBER = dict(
    zip(
        get_sensor("sentinel-2-l2a").bands,
        ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"],
        strict=True,
    )
)
LANDSAT_BANDS = ["coastal", "blue", "green", "red", "nir08", "swir16", "swir22"]
LANDSAT_BY_NUMBER = {band: f"SR_B{i}" for i, band in enumerate(LANDSAT_BANDS, start=1)}
PC, ES = "planetary-computer", "earth-search"

GOLDEN = {
    # Assets by band (None: named like the band), offset, mask, EPSG code.
    f"{ES}/LC08_L2SP_033032_20231008_02_T1": (None, -0.2, "qa_pixel", 32613),
    f"{ES}/S2B_T20EPT_20250731T131905_L2A": (None, -0.1, "scl", 32720),
    f"{ES}/S2B_T24MUV_20250731T130245_L2A": (None, -0.1, "scl", 32724),
    f"{ES}/S2B_T24MWV_20250731T130245_L2A": (None, -0.1, "scl", 32724),
    # Applied already, although the assets go on stating it.
    f"{ES}/S2A_13TDE_20231008_0_L2A": (None, 0.0, "scl", 32613),
    f"{ES}/S2B_24MUA_20250731_0_L2A": (None, 0.0, "scl", 32724),
    f"{ES}/S2B_24MVV_20250731_0_L2A": (None, 0.0, "scl", 32724),
    f"{ES}/S2B_24MXV_20250731_0_L2A": (None, 0.0, "scl", 32724),
    f"{PC}/LC08_L2SP_044034_20160830_02_T1": (LANDSAT_BY_NUMBER, -0.2, "QA_PIXEL", 32610),
    f"{PC}/LC08_L2SP_044034_20161001_02_T1": (LANDSAT_BY_NUMBER, -0.2, "QA_PIXEL", 32610),
    f"{PC}/LC08_L2SP_044034_20161102_02_T1": (LANDSAT_BY_NUMBER, -0.2, "QA_PIXEL", 32610),
    f"{PC}/LC08_L2SP_044034_20161204_02_T1": (LANDSAT_BY_NUMBER, -0.2, "QA_PIXEL", 32610),
    f"{PC}/LC08_L2SP_044034_20170105_02_T1": (LANDSAT_BY_NUMBER, -0.2, "QA_PIXEL", 32610),
    f"{PC}/LC08_L2SP_202033_20220327_02_T1": (None, -0.2, "qa_pixel", 32630),
    f"{PC}/LC09_L2SP_084069_20250722_02_T2": (None, -0.2, "qa_pixel", 32658),
    f"{PC}/LC09_L2SP_089088_20240417_02_T2": (None, -0.2, "qa_pixel", 32655),
    f"{PC}/LC09_L2SP_089090_20240417_02_T1": (None, -0.2, "qa_pixel", 32655),
    # No surface temperature, which nothing here reads.
    f"{PC}/LC09_L2SR_084056_20250722_02_T1": (None, -0.2, "qa_pixel", 32659),
    f"{PC}/S1A_IW_GRDH_1SDV_20240419T045749_20240419T045814_053498_067DF2_rtc": (
        None, 0.0, None, 32633,
    ),
    f"{PC}/S1A_IW_GRDH_1SDV_20240419T045839_20240419T045904_053498_067DF2_rtc": (
        None, 0.0, None, 32633,
    ),
    f"{PC}/S1A_IW_GRDH_1SDV_20250311T044231_20250311T044249_058252_073302_rtc": (
        None, 0.0, None, 32634,
    ),
    # Processing baselines 02.12, then 04.00, 05.10 and 05.11.
    f"{PC}/S2A_MSIL2A_20150704T101006_R022_T35XQA_20210411T133707": (
        S2_BY_NUMBER, 0.0, "SCL", 32635,
    ),
    f"{PC}/S2A_MSIL2A_20190101T000001_R116_T58UFF_20201007T214659": (
        S2_BY_NUMBER, 0.0, "SCL", 32658,
    ),
    f"{PC}/S2A_MSIL2A_20190101T000001_R116_T59ULB_20201007T214700": (
        S2_BY_NUMBER, 0.0, "SCL", 32659,
    ),
    f"{PC}/S2A_MSIL2A_20190101T000001_R116_T60VUJ_20201007T214652": (
        S2_BY_NUMBER, 0.0, "SCL", 32660,
    ),
    f"{PC}/S2B_MSIL2A_20220612T182919_R027_T24XWR_20220613T123251": (
        S2_BY_NUMBER, -0.1, "SCL", 32624,
    ),
    f"{PC}/S2B_MSIL2A_20240419T095549_R122_T47XML_20240419T123458": (
        S2_BY_NUMBER, -0.1, "SCL", 32647,
    ),
    f"{PC}/S2B_MSIL2A_20250312T014549_R074_T53NKG_20250312T041213": (
        S2_BY_NUMBER, -0.1, "SCL", 32653,
    ),
}  # fmt: skip
SCALES = {"sentinel-2": 1e-4, "landsat-c": 2.75e-5, "sentinel-1": 1.0}
NODATA = {"sentinel-2": 0, "landsat-c": 0, "sentinel-1": -32768}


@pytest.fixture(scope="module")
def items(shared: Path) -> dict[str, pystac.Item]:
    return real_items(shared)


def supported(items: dict[str, pystac.Item]) -> dict[str, pystac.Item]:
    return {name: item for name, item in items.items() if item.collection_id != "sentinel-1-grd"}


def test_every_item_of_a_known_product_resolves(items: dict[str, pystac.Item]) -> None:
    assert set(supported(items)) == set(GOLDEN)
    for name, (keys, offset, mask, epsg) in GOLDEN.items():
        item, kind = items[name], SENSORS[str(items[name].collection_id)][:10]
        kind = "landsat-c" if kind.startswith("landsat") else kind
        sensor = get_sensor(SENSORS[str(item.collection_id)])
        assert sensor.wants(item), name
        for band in sensor.bands:
            found = resolve_band(item, sensor, band)
            assert found.key == (keys[band] if keys else band), name
            assert found.href == item.assets[found.key].href
            assert not found.href.partition("?")[0].endswith(".jp2")
            numbers = found.scale, found.offset, found.nodata
            assert numbers == (SCALES[kind], offset, NODATA[kind]), name
        found_mask = resolve_mask(item, sensor.mask).key if sensor.mask else None
        assert (found_mask, scene_epsg(item)) == (mask, epsg), name


def test_pixel_sizes_are_those_that_items_state(items: dict[str, pystac.Item]) -> None:
    for item in supported(items).values():
        sensor = get_sensor(SENSORS[str(item.collection_id)])
        for name, band in sensor.bands.items():
            asset = item.assets[resolve_band(item, sensor, name).key]
            assert asset.extra_fields.get("gsd", band.resolution) == band.resolution


def test_ground_range_products_of_sentinel_1_are_refused(items: dict[str, pystac.Item]) -> None:
    refused = [item for item in items.values() if item.collection_id == "sentinel-1-grd"]
    assert refused
    sensor = get_sensor("sentinel-1-rtc")
    for item in refused:
        with pytest.raises(SensorError, match=rf"{item.id} has no asset vv.*it has .*hh"):
            resolve_band(item, sensor, "vv")


def test_an_item_without_one_of_its_assets_is_refused(items: dict[str, pystac.Item]) -> None:
    sensor = get_sensor("landsat-c2-l2")
    item = items[f"{PC}/LC09_L2SR_084056_20250722_02_T1"].clone()
    del item.assets["red"], item.assets["qa_pixel"]
    with pytest.raises(SensorError, match=r"LC09_L2SR\S+ has no asset red or SR_B4"):
        resolve_band(item, sensor, "red")
    with pytest.raises(SensorError, match=r"LC09_L2SR\S+ has no asset qa_pixel or QA_PIXEL"):
        resolve_mask(item, sensor.mask)


def test_slices_of_a_datatake_are_one_pass(items: dict[str, pystac.Item]) -> None:
    radar = [item for item in items.values() if item.collection_id == "sentinel-1-rtc"]
    assert len(newest_processing(radar)) == len(radar) == 3
    first, second, other = (pass_of(item) for item in radar)
    assert first == second != other


def test_the_table_in_the_docs_is_what_is_read(items: dict[str, pystac.Item]) -> None:
    assert table_in_docs() == item_table(items)
