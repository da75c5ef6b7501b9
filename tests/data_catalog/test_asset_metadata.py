"""What generic STAC items say of their bands, in the words of STAC 1.0 and of 1.1."""

import math
from datetime import UTC, datetime
from typing import Any

import pystac
import pytest

from data_catalog.asset_metadata import find_asset, stated_bands
from data_catalog.errors import SensorError
from data_catalog.scenes import scene_epsg
from data_catalog.sensors import Band, Sensor, get_sensor, resolve_band, resolve_mask

S2 = get_sensor("sentinel-2-l2a")
PLAIN = Sensor("plain", 10, {"red": Band(("red",), 10), "nir": Band(("nir",), 10)})
COG, JP2 = pystac.MediaType.COG, pystac.MediaType.JPEG2000


def scene(assets: dict[str, dict[str, Any]], **properties: Any) -> pystac.Item:
    known = {key.replace("__", ":"): value for key, value in properties.items()}
    item = pystac.Item("scene", None, None, datetime(2024, 1, 1, tzinfo=UTC), known)
    for key, said in assets.items():
        fields = dict(said)
        kind, roles = fields.pop("type", COG), fields.pop("roles", ["data"])
        suffix = "jp2" if kind == JP2 else "tif"
        item.add_asset(key, pystac.Asset(f"{key}.{suffix}", None, None, kind, roles, fields))
    return item


def stac_1_0(name: str, common_name: str, **numbers: Any) -> dict[str, Any]:
    band = {"name": name, "common_name": common_name}
    return {"eo:bands": [band], "raster:bands": [numbers]}


def stac_1_1(name: str, common_name: str, **numbers: Any) -> dict[str, Any]:
    words = {"scale": "raster:scale", "offset": "raster:offset"}
    numbers = {words.get(key, key): value for key, value in numbers.items()}
    return {"bands": [{"name": name, "eo:common_name": common_name, **numbers}]}


def stac_1_1_of_the_asset(name: str, common_name: str, **numbers: Any) -> dict[str, Any]:
    """What holds for all bands of an asset can be said of the asset."""
    fields = stac_1_1(name, common_name, **numbers)["bands"][0]
    return {"bands": [{"name": fields.pop("name")}], **fields}


WAYS = [stac_1_0, stac_1_1, stac_1_1_of_the_asset]


def test_the_same_scene_described_in_either_version_is_read_the_same() -> None:
    projections = [
        {"proj__epsg": 32632},
        {"proj__code": "EPSG:32632"},
        {"proj__code": "EPSG:32632"},
    ]
    found = set()
    for way, projection in zip(WAYS, projections, strict=True):
        item = scene(
            {
                "measured-1": way("B1", "red", scale=0.002, offset=-0.05, nodata=-9999),
                "measured-2": way("B2", "nir", scale=0.004, offset=0.0, nodata="nan"),
            },
            **projection,
        )
        red, nir = resolve_band(item, PLAIN, "red"), resolve_band(item, PLAIN, "nir")
        assert nir.nodata is not None and math.isnan(nir.nodata)
        found.add((red, nir.key, nir.scale, nir.offset, scene_epsg(item)))
    ((red, *nir, epsg),) = found
    assert (red.key, red.scale, red.offset, red.nodata) == ("measured-1", 0.002, -0.05, -9999)
    assert (*nir, epsg) == ("measured-2", 0.004, 0.0, 32632)


@pytest.mark.parametrize("way", WAYS)
def test_a_name_goes_before_a_common_name(way: Any) -> None:
    item = scene(
        {"a": way("B8A", "nir", scale=1e-4), "b": way("B08", "nir", scale=1e-4)},
        **baseline("02.14"),
    )
    assert resolve_band(item, S2, "nir").key == "b"
    assert resolve_band(item, S2, "nir08").key == "a"


def baseline(version: str, **more: Any) -> dict[str, Any]:
    return {"s2__processing_baseline": version, **more}


APPLIED = "earthsearch__boa_offset_applied"


@pytest.mark.parametrize(
    ("stated", "properties", "offset"),
    [
        (None, baseline("02.14"), 0.0),
        (None, baseline("04.00"), -0.1),
        (None, baseline("05.11"), -0.1),
        (-0.1, baseline("05.11"), -0.1),
        (0.0, baseline("05.11"), 0.0),
        (-0.1, {}, -0.1),
        (-0.1, baseline("05.11", **{APPLIED: True}), 0.0),
        (None, baseline("05.11", **{APPLIED: True}), 0.0),
        (-0.1, baseline("05.11", **{APPLIED: False}), -0.1),
        (0.0, baseline("04.00", **{APPLIED: False}), -0.1),
        (-0.1, baseline("02.14", **{APPLIED: False}), 0.0),
    ],
)
def test_the_offset_of_sentinel_2_is_subtracted_once(
    stated: float | None, properties: dict[str, Any], offset: float
) -> None:
    for way in WAYS:
        numbers = {"scale": 1e-4} if stated is None else {"scale": 1e-4, "offset": stated}
        item = scene({"red": way("B04", "red", **numbers)}, **properties)
        assert resolve_band(item, S2, "red").offset == offset


def test_an_offset_that_nothing_tells_is_an_error() -> None:
    with pytest.raises(SensorError, match="scene does not state its s2:processing_baseline"):
        resolve_band(scene({"red": {}}), S2, "red")


def test_a_scale_that_nothing_tells_is_an_error() -> None:
    with pytest.raises(SensorError, match="scene, asset red: neither it nor the sensor plain"):
        resolve_band(scene({"red": {}}), PLAIN, "red")


def test_a_number_that_is_none_is_an_error() -> None:
    item = scene({"red": {"raster:bands": [{"scale": "tiny"}]}})
    with pytest.raises(SensorError, match="scale as 'tiny'"):
        resolve_band(item, PLAIN, "red")


@pytest.mark.parametrize("known_key", [True, False])
def test_jpeg_2000_is_read_only_where_there_is_nothing_better(known_key: bool) -> None:
    key = "red" if known_key else "scene-4"
    packed = {"type": JP2, **stac_1_0("B04", "red", scale=1e-4)}
    item = scene({key: packed}, **baseline("02.14"))
    assert resolve_band(item, S2, "red").key == key
    item = scene({key: packed, "x": stac_1_0("B04", "red", scale=1e-4)}, **baseline("02.14"))
    assert resolve_band(item, S2, "red").key == "x"


def test_assets_of_one_band_are_told_apart_by_their_pixels() -> None:
    sizes = {f"B04_{metres}m": metres for metres in (20, 10, 60)}
    item = scene({key: {"gsd": gsd, **stac_1_0("B04", "red")} for key, gsd in sizes.items()})
    assert find_asset(item, "red", ("B04", "red"), 10)[0] == "B04_10m"
    with pytest.raises(SensorError, match="several assets of the band red: B04_20m, B04_10m"):
        find_asset(item, "red", ("B04", "red"), 30)


def test_pictures_and_mosaics_of_bands_are_no_bands() -> None:
    three = [{"name": name, "common_name": name} for name in ("red", "green", "blue")]
    shown = {
        "visual": {"eo:bands": three},
        "preview": {"roles": ["overview"], **stac_1_0("red", "red", scale=1e-4)},
    }
    with pytest.raises(SensorError, match=r"no asset nir.*it has visual, preview"):
        resolve_band(scene(shown), PLAIN, "nir")
    with pytest.raises(SensorError, match="none that calls itself red"):
        resolve_band(scene(shown), PLAIN, "red")
    with pytest.raises(SensorError, match="its asset red holds 3 bands"):
        resolve_band(scene({"red": {"eo:bands": three}}), PLAIN, "red")


def test_masks_are_found_by_key() -> None:
    assert resolve_mask(scene({"SCL_20m": {}}), S2.mask).key == "SCL_20m"
    with pytest.raises(SensorError, match="no asset SCL or scl or SCL_20m"):
        resolve_mask(scene({"red": {}}), S2.mask)


def test_an_asset_of_which_nothing_is_said_has_one_band() -> None:
    (band,) = stated_bands(pystac.Asset("a.tif"))
    assert {band.name, band.scale, band.offset, band.nodata, band.resolution} == {None}


def test_a_projection_may_be_told_by_the_assets_alone() -> None:
    assert scene_epsg(scene({"red": {"proj:code": "EPSG:32756"}})) == 32756
    assert scene_epsg(scene({"red": {"proj:epsg": 32756}}, proj__code=None)) == 32756
    assert scene_epsg(scene({"red": {}}, proj__code="IAU_2015:30100")) is None
