"""Sensors that users add in a file of their own."""

import re
from pathlib import Path
from typing import Any

import pytest

from data_catalog.errors import SensorError
from data_catalog.sensors import EXTRA_SENSORS, REFLECTANCE, Band, get_sensor

PAGE = Path(__file__).parents[2] / "docs" / "sensors.md"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def written(content: str) -> Path:
        path = tmp_path / f"sensors-{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(content)
        monkeypatch.setenv(EXTRA_SENSORS, str(path))
        return path

    return written


def test_three_lines_make_a_sensor(write: Any) -> None:
    write('["my-camera"]\nresolution = 10\nbands = ["red", "green", "blue", "nir"]\n')
    sensor = get_sensor("my-camera")
    assert sensor.bands["nir"] == Band(("nir",), 10)
    assert sensor.default_bands == ("red", "green", "blue", "nir")
    assert sensor.picture_bands == ("red", "green", "blue")
    assert (sensor.title, sensor.collection("any")) == ("my-camera", "my-camera")
    assert (sensor.mask, sensor.scale, sensor.nodata) == (None, None, 0)
    assert sensor.stored == REFLECTANCE
    assert get_sensor("sentinel-2-l2a").title == "Sentinel-2 Level-2A"
    with pytest.raises(SensorError, match=r"sentinel-1-rtc, my-camera\. More can be added"):
        get_sensor("landsat")


def test_a_sensor_can_be_like_another(write: Any) -> None:
    write(
        """
        ["radar-down"]
        like = "sentinel-1-rtc"
        only = { "sat:orbit_state" = ["descending"] }

        ["tier-1"]
        like = "landsat-c2-l2"
        only = { "landsat:collection_category" = ["T1"] }

        ["mine"]
        like = "sentinel-2-l2a"
        collection = "s2-mine"
        bands.red = "measurement-4"

        ["mine-too"]
        like = "mine"
        title = "Mine too"
        """
    )
    radar = get_sensor("radar-down")
    assert radar.only == {"sat:orbit_state": ("descending",)}
    assert get_sensor("tier-1").only == {
        "platform": ("landsat-8", "landsat-9"),
        "landsat:collection_category": ("T1",),
    }
    assert radar.collection("planetary-computer") == "sentinel-1-rtc"
    mine, original = get_sensor("mine"), get_sensor("sentinel-2-l2a")
    assert mine.collection("generic") == get_sensor("mine-too").collection("generic") == "s2-mine"
    assert mine.bands == {**original.bands, "red": Band(("measurement-4",), 10)}
    assert mine.mask == original.mask and mine.title == original.title


def test_bands_can_be_written_short_or_long(write: Any) -> None:
    write(
        """
        [camera]
        resolution = 20
        bands.a = "asset"
        bands.b = ["first", "second"]
        bands.c = { keys = ["x"], resolution = 60 }
        bands.d = {}
        mask = { keys = ["quality"], nodata = 255, unclear_classes = [1] }
        """
    )
    sensor = get_sensor("camera")
    assert sensor.bands == {
        "a": Band(("asset",), 20),
        "b": Band(("first", "second"), 20),
        "c": Band(("x",), 60),
        "d": Band(("d",), 20),
    }
    assert sensor.picture_bands == ("a",)
    assert sensor.mask is not None and sensor.mask.resolution == 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", r"is no TOML: Expected"),
        ("resolution = 10", r", resolution: expected a table of a sensor, but found 10"),
        ("[a]\ntitle = 'x'", r", sensor a: resolution is missing"),
        ("[a]\nresolution = 10", r", sensor a: bands: .*at least 1"),
        ("[a]\nresolution = 'x'\nbands = ['r']", r", sensor a: resolution: .*but found 'x'"),
        ("[a]\nresolution = 7\nbands = ['r']", r"resolution: 7 m pixels; they must divide 60 m"),
        (
            "[a]\nresolution = 10\nbands.red = { keys = ['r'], resolution = 15 }",
            r"sensor a: bands\.red: 15 m pixels; they must divide 60 m and be a multiple of",
        ),
        (
            "[a]\nresolution = 10\nbands = ['r']\nscael = 1",
            r"sensor a: scael is unknown \(did you mean scale",
        ),
        (
            "[a]\nresolution = 10\nbands.red = { key = 'r' }",
            r"sensor a: bands\.red\.key is unknown \(did you mean keys",
        ),
        ("[a]\nresolution = 10\nbands.red = 4", r"sensor a: bands\.red: .*but found 4"),
        ("[a]\nresolution = 10\nbands.red = []", r"sensor a: bands\.red\.keys: .*at least 1"),
        (
            "[a]\nresolution = 10\nbands = ['r']\nresampling = 'cubik'",
            r"resampling: .*'cubic'.*but found 'cubik'",
        ),
        (
            "[a]\nresolution = 10\nbands = ['r']\ndefault_bands = ['red']",
            r"default_bands: there is no band red among r",
        ),
        ("[a]\nlike = 'sentinel-2-l1c'", r"sensor a, like: .*did you mean sentinel-2-l2a"),
        ("['A/B']\nresolution = 10\nbands = ['r']", r"sensor A/B: id: .*but found 'A/B'"),
        (
            "[a]\nresolution = 10\nbands = ['r']\nstored = { quantity = 'x', unit = 'K' }",
            r"sensor a: stored\.scale is missing.*; stored\.offset is missing",
        ),
    ],
)
def test_a_mistake_is_told_with_file_sensor_and_key(write: Any, content: str, message: str) -> None:
    path = write(content)
    with pytest.raises(SensorError, match=message) as raised:
        get_sensor("sentinel-2-l2a")
    assert f"{EXTRA_SENSORS}={path}" in str(raised.value)


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXTRA_SENSORS, "nowhere/sensors.toml")
    with pytest.raises(SensorError, match=rf"{EXTRA_SENSORS}=nowhere/sensors.toml cannot be read"):
        get_sensor("sentinel-2-l2a")


def test_the_examples_in_the_docs_are_sensors(write: Any) -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(examples) >= 3
    for example in examples:
        write(example)
        for name in re.findall(r'^\["?([\w-]+)"?\]', example, re.MULTILINE):
            assert get_sensor(name).bands
