import hashlib
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchgeo.models import get_model, get_weight
from torchvision.models._api import Weights, WeightsEnum
from torchvision.transforms.v2 import Normalize

from rshash.errors import FeatureError
from rshash.extractors.torchgeo_inputs import TileInput, tile_input
from rshash.features import make_extractor, restore_extractor

ALL = "ResNet18_Weights.SENTINEL2_ALL_MOCO"
RGB = "ResNet18_Weights.SENTINEL2_RGB_MOCO"
LANDSAT = "ResNet18_Weights.LANDSAT_ETM_SR_MOCO"
SENTINEL2_BANDS = [
    *("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3"),
    *("nir", "nir08", "nir09", "swir16", "swir22"),
]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose files a loopback server offers, and in it an empty cache of torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (tmp_path / "address").write_text(f"http://127.0.0.1:{server.server_port}")
    yield tmp_path
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def rgb_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return get_model("resnet18", in_chans=3).state_dict()


def publish(
    folder: Path, state: object, weights: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, str]:
    """Saves a file, named by its hash, and lets the weights be published at its address."""
    torch.save(state, folder / "weights.pth")
    content = (folder / "weights.pth").read_bytes()
    path = folder / f"weights-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / "weights.pth").rename(path)
    url = f"{(folder / 'address').read_text()}/{path.name}"
    monkeypatch.setattr(get_weight(weights).value, "url", url)
    return path, url


def tiles(bands: int, n: int = 3, size: int = 20) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 0.4, (n, bands, size, size)).astype(np.float32)


def input_of(name: str, statistics: dict | None = None) -> TileInput:
    weights = get_weight(name)
    return tile_input(weights, weights.meta["model"], None, statistics)


def test_weights_are_downloaded_once_and_restored_without_a_file(
    folder: Path, rgb_state: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, url = publish(folder, rgb_state, RGB, monkeypatch)
    spec = {"kind": "torchgeo", "weights": RGB, "bands": SENTINEL2_BANDS}
    extractor = make_extractor(spec)
    assert extractor.bands == ("red", "green", "blue")
    assert extractor.id.startswith("torchgeo-")
    features = extractor(tiles(3))
    assert features.shape == (3, 512)
    path.unlink()
    assert make_extractor(spec).id == extractor.id
    assert url not in str(extractor.spec())
    assert "checkpoint" not in extractor.spec()
    (folder / "cache" / "hub" / "checkpoints" / path.name).unlink()
    restored = restore_extractor(extractor.spec(), extractor.tensors())
    assert restored.id == extractor.id
    np.testing.assert_array_equal(restored(tiles(3)), features)
    with pytest.raises(FeatureError, match=rf"{url} could not be downloaded: .*404.*checkpoint"):
        make_extractor(spec)


def test_features_are_those_of_torchgeos_own_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tiles of the weights' own size torchgeo's transforms resize by nothing."""
    torch.manual_seed(1)
    publish(folder, get_model("resnet18", in_chans=13).state_dict(), ALL, monkeypatch)
    member = get_weight(ALL)
    reflectance = tiles(13, n=2, size=224)
    network = get_model("resnet18", weights=member, num_classes=0).eval()
    normalise = member.transforms[-1]
    with torch.inference_mode():
        expected = network(normalise(torch.from_numpy(reflectance * 10000)))
    extractor = make_extractor({"kind": "torchgeo", "weights": ALL})
    assert extractor.bands[10] == "cirrus"
    np.testing.assert_allclose(extractor(reflectance), expected, rtol=1e-4, atol=1e-5)


def test_a_band_that_the_sensor_lacks_is_named_and_can_be_stood_in_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"kind": "torchgeo", "weights": ALL, "bands": SENTINEL2_BANDS}
    with pytest.raises(FeatureError, match=rf"{ALL} reads .*the sensor has coastal.*lacks cirrus"):
        make_extractor(spec)
    with pytest.raises(FeatureError, match="it lacks coastal"):
        make_extractor({**spec, "bands": ["red", "green", "blue"]})
    with pytest.raises(FeatureError, match=f'"absent" holds vv, but {RGB} reads red'):
        make_extractor({**spec, "weights": RGB, "absent": {"vv": 0.0}})
    torch.manual_seed(1)
    publish(folder, get_model("resnet18", in_chans=13).state_dict(), ALL, monkeypatch)
    extractor = make_extractor({**spec, "absent": {"cirrus": 0.002}})
    assert extractor.bands == tuple(SENTINEL2_BANDS)
    pixels = tiles(12)
    whole = np.insert(pixels, 10, 0.002, axis=1)
    expected = make_extractor({"kind": "torchgeo", "weights": ALL})(whole)
    np.testing.assert_allclose(extractor(pixels), expected, rtol=1e-5)
    restored = restore_extractor(extractor.spec(), extractor.tensors())
    np.testing.assert_array_equal(restored(pixels), extractor(pixels))


def test_a_tile_without_data_has_no_features(
    folder: Path, rgb_state: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(folder, rgb_state, RGB, monkeypatch)
    extractor = make_extractor({"kind": "torchgeo", "weights": RGB})
    pixels = tiles(3)
    whole = extractor(pixels)
    pixels[0] = np.nan
    features = extractor(pixels)
    assert np.isnan(features[0]).all()
    np.testing.assert_array_equal(features[1:], whole[1:])


@pytest.mark.parametrize(
    ("name", "bands", "statistics"),
    [
        (RGB, ["red", "green", "blue"], {"red": [0, 1]}),
        (
            "ResNet50_Weights.SENTINEL2_ALL_SOFTCON",
            [*SENTINEL2_BANDS[:10], "cirrus", "swir16", "swir22"],
            {"coastal": [0.16129, 0.0791], "cirrus": [0.0022, 0.00475]},
        ),
        (
            LANDSAT,
            ["blue", "green", "red", "nir08", "swir16", "swir22"],
            {"blue": [0, 0.3 * 255 / 256], "swir22": [0, 0.3 * 255 / 256]},
        ),
        (
            "ViTSmall16_Weights.LANDSAT_OLI_TIRS_TOA_SIMCLR",
            [
                *("coastal", "blue", "green", "red", "nir08", "swir16", "swir22"),
                *("pan", "cirrus", "lwir11", "lwir12"),
            ],
            {"red": [0, 0.4 * 255 / 256], "lwir11": [248.15, 70 * 255 / 256]},
        ),
        ("ResNet50_Weights.SENTINEL1_ALL_MOCO", ["vv", "vh"], {"vh": [-20.26, 5.91]}),
        ("ResNet50_Weights.SENTINEL2_ALL_SECO_ECO", SENTINEL2_BANDS, {"nir08": [0, 1]}),
    ],
)
def test_bands_and_scale_come_from_the_metadata(
    name: str, bands: list[str], statistics: dict
) -> None:
    found = input_of(name)
    assert found.bands == bands
    assert found.side == 224
    for band, expected in statistics.items():
        np.testing.assert_allclose(found.statistics[band], expected, rtol=1e-6)


def test_several_normalisations_are_one() -> None:
    steps = [([3, 2], [85, 101]), ([0], [1 / 255]), ([0.4, 0.5], [0.2, 0.3])]

    class TwoBands(WeightsEnum):
        SENTINEL2_TWO = Weights(
            url="",
            transforms=torch.nn.Sequential(*(Normalize(mean, std) for mean, std in steps)),
            meta={"dataset": "SSL4EO-S12", "bands": ["B4", "B3"]},
        )

    found = tile_input(TwoBands.SENTINEL2_TWO, "resnet18", None, None)
    reflectance = torch.rand(2, 4, 4)
    expected = TwoBands.SENTINEL2_TWO.transforms(reflectance * 10000)
    bands = zip(reflectance, found.scale(), strict=True)
    scaled = torch.stack([(band - mean) / spread for band, (mean, spread) in bands])
    torch.testing.assert_close(scaled, expected)


def test_landsat_weights_read_8_bit_images_cut_off_at_their_brightest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    publish(folder, get_model("resnet18", in_chans=6).state_dict(), LANDSAT, monkeypatch)
    extractor = make_extractor({"kind": "torchgeo", "weights": LANDSAT})
    bright = tiles(6)
    brighter = np.where(bright > 0.3, 0.9, bright).astype(np.float32)
    np.testing.assert_allclose(extractor(brighter), extractor(bright), rtol=1e-5)


def test_weights_whose_scale_is_unknown_are_refused() -> None:
    for name in (
        "ResNet18_Weights.SENTINEL2_RGB_SECO",
        "ResNet50_Weights.SENTINEL2_SI_MS_SATLAS",
        "ResNet50_Weights.SENTINEL1_GRD_CLOSP",
        "ResNet50_Weights.SENTINEL2_ALL_NDVI_SECO_ECO",
    ):
        with pytest.raises(FeatureError, match=f"{name} do not tell what .*statistics"):
            make_extractor({"kind": "torchgeo", "weights": name})
    with pytest.raises(FeatureError, match="GASSL name no bands"):
        make_extractor({"kind": "torchgeo", "weights": "ResNet50_Weights.FMOW_RGB_GASSL"})
    with pytest.raises(FeatureError, match="unet, which does not encode"):
        make_extractor({"kind": "torchgeo", "weights": "Unet_Weights.SENTINEL2_2CLASS_FTW"})
    with pytest.raises(FeatureError, match=rf"no weights .*did you mean.*{ALL}"):
        make_extractor({"kind": "torchgeo", "weights": ALL.replace("MOCO", "MOKO")})


def test_files_that_are_not_the_published_weights_are_refused(
    folder: Path, rgb_state: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = publish(folder, rgb_state, RGB, monkeypatch)
    spec = {"kind": "torchgeo", "weights": RGB, "checkpoint": str(path)}
    extractor = make_extractor(spec)
    assert not (folder / "cache").exists()

    torch.save(rgb_state, folder / "other.pth")
    (folder / "other.pth").write_bytes((folder / "other.pth").read_bytes() + b" ")
    expected = path.stem.rpartition("-")[2]
    with pytest.raises(FeatureError, match=rf"other.pth is damaged .*begin with {expected}, but"):
        make_extractor({**spec, "checkpoint": str(folder / "other.pth")})
    with pytest.raises(FeatureError, match="No checkpoint at"):
        make_extractor({**spec, "checkpoint": str(folder / "none.pth")})

    save_file(rgb_state, folder / "copy.safetensors")
    copy = make_extractor({**spec, "checkpoint": str(folder / "copy.safetensors")})
    assert copy.id == extractor.id

    monkeypatch.setattr(get_weight(RGB).value, "url", f"{path.parent}/nothing-to-verify.pth")
    torch.save({**rgb_state, "conv1.weight": torch.zeros(64, 13, 7, 7)}, folder / "other.pth")
    with pytest.raises(FeatureError, match=r"conv1.weight of shape \(64, 13, 7, 7\) in place"):
        make_extractor({**spec, "checkpoint": str(folder / "other.pth")})


class Harmful:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("harm"),)


def test_no_pickle_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(get_weight(RGB).value, "url", "http://localhost/weights.pth")
    spec = {"kind": "torchgeo", "weights": RGB, "checkpoint": "weights.pth"}
    Path("weights.pth").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(FeatureError, match=r"weights.pth is not a readable .*bare pickle"):
        make_extractor(spec)
    torch.save({"conv1.weight": Harmful()}, "weights.pth")
    with pytest.raises(FeatureError, match=r"weights.pth does not hold network weights alone"):
        make_extractor(spec)
    torch.save({"conv1.weight": torch.zeros(1), "epoch": 3}, "weights.pth")
    with pytest.raises(FeatureError, match="epoch is a int"):
        make_extractor(spec)
    assert not Path("harm").exists()


def test_a_damaged_download_is_refused_and_not_kept(
    folder: Path, rgb_state: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, url = publish(folder, rgb_state, RGB, monkeypatch)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FeatureError, match=f"{url} could not be downloaded: invalid hash"):
        make_extractor({"kind": "torchgeo", "weights": RGB})
    assert not list((folder / "cache").rglob("*.pth"))


def test_dofa_reads_any_bands_of_known_wavelength() -> None:
    name = "DOFABase16_Weights.DOFA_MAE"
    spec = {"kind": "torchgeo", "weights": name, "bands": ["red", "nir"]}
    with torch.device("meta"):
        state = get_model("dofa_base_patch16_224", num_classes=0).state_dict()
    random = {name: torch.rand(tensor.shape) / 100 for name, tensor in state.items()}
    extractor = restore_extractor(spec, random)
    assert (extractor.bands, extractor.dimensions) == (("red", "nir"), 768)
    one, other = extractor(tiles(2, n=2))
    assert np.abs(one - other).max() > 0
    with pytest.raises(FeatureError, match=r"any bands of known wavelength, but not lwir.*nir"):
        make_extractor({**spec, "bands": ["red", "lwir"]})
    with pytest.raises(FeatureError, match="but not none"):
        make_extractor({"kind": "torchgeo", "weights": name})


def test_croma_reads_the_modality_that_the_sensor_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = get_weight("CROMABase_Weights.CROMA_VIT")
    torch.manual_seed(0)
    network = get_model("croma_base", modalities=["sar"], image_size=120).eval()
    state = {
        "s1_encoder": network.s1_encoder.state_dict(),
        "s1_GAP_FFN": network.s1_GAP_FFN.state_dict(),
        "s2_encoder": {"linear_input.bias": torch.zeros(1)},
        "joint_encoder": {},
    }
    publish(folder, state, str(weights), monkeypatch)
    spec = {
        "kind": "torchgeo",
        "weights": str(weights),
        "bands": ["vh", "vv"],
        "statistics": {"vv": [-12, 5], "vh": [-20, 6]},
    }
    extractor = make_extractor(spec)
    assert (extractor.bands, extractor.dimensions) == (("vv", "vh"), 768)
    decibels = np.random.default_rng(0).normal(-15, 3, (1, 2, 120, 120)).astype(np.float32)
    low, reach = np.array([-22, -32.0]), np.array([20, 24.0])
    scaled = (decibels - low[:, None, None]) / reach[:, None, None]
    with torch.inference_mode():
        expected = network(x_sar=torch.from_numpy(scaled.clip(0, 1).astype(np.float32)))
    np.testing.assert_allclose(extractor(decibels), expected["sar_GAP"], rtol=1e-3, atol=1e-5)
    assert tile_input(weights, "croma_base", SENTINEL2_BANDS, None).bands == SENTINEL2_BANDS
    with pytest.raises(FeatureError, match=r"lacks coastal, .*Use other weights"):
        make_extractor({**spec, "bands": ["red"]})


def test_final_norms_that_pre_training_lacks_start_as_the_identity(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "ViTSmall16_Weights.LANDSAT_ETM_SR_MOCO"
    state = get_model("vit_small_patch16_224", in_chans=6).state_dict()
    state = {name: tensor for name, tensor in state.items() if not name.startswith("norm.")}
    publish(folder, state, name, monkeypatch)
    extractor = make_extractor({"kind": "torchgeo", "weights": name})
    assert extractor.dimensions == 384
    assert (extractor.tensors()["norm.weight"] == 1).all()
    assert (extractor.tensors()["norm.bias"] == 0).all()
