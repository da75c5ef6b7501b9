from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchgeo.models import RCF

from rshash.errors import FeatureError
from rshash.features import make_extractor, restore_extractor
from rshash.scaling import FeatureScaling

MOSAIKS = {"kind": "mosaiks", "bands": ["red", "nir"], "features": 16, "seed": 3}
ARCHITECTURE = "test_resnet"


def make_tiles(n: int = 5, bands: int = 2, size: int = 12) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 0.4, (n, bands, size, size)).astype(np.float32)


@pytest.fixture(scope="module")
def timm_spec(tmp_path_factory: pytest.TempPathFactory) -> dict:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    state = timm.create_model(ARCHITECTURE, num_classes=0).state_dict()
    save_file({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    return {
        "kind": "timm",
        "bands": ["red", "green", "blue"],
        "architecture": ARCHITECTURE,
        "checkpoint": str(path),
        "input_size": 32,
    }


@pytest.mark.parametrize("kind", ["mosaiks", "timm"])
def test_extractors_restore_to_the_same_features(kind: str, timm_spec: dict) -> None:
    extractor = make_extractor(MOSAIKS if kind == "mosaiks" else timm_spec)
    tiles = make_tiles(bands=len(extractor.bands), size=20)
    features = extractor(tiles)
    assert features.shape == (5, extractor.dimensions)
    assert features.dtype == np.float32
    assert features.std(axis=0).max() > 0
    restored = restore_extractor(extractor.spec(), extractor.tensors())
    assert restored.id == extractor.id
    assert extractor.id.startswith(f"{kind}-")
    np.testing.assert_array_equal(restored(tiles), features)


def test_the_spec_holds_no_path(timm_spec: dict) -> None:
    assert Path(timm_spec["checkpoint"]).name not in str(make_extractor(timm_spec).spec())


def test_precision_is_told_by_kind_and_device(timm_spec: dict) -> None:
    for spec, on_gpu in ((MOSAIKS, "float32"), (timm_spec, "bfloat16")):
        extractor = make_extractor(spec)
        extractor.device = torch.device("cpu")
        assert extractor.precision == "float32"
        extractor.device = torch.device("cuda")
        assert extractor.precision == on_gpu


def test_the_random_filters_follow_the_seed() -> None:
    first, again = make_extractor(MOSAIKS), make_extractor(MOSAIKS)
    assert first.id == again.id
    assert first.id != make_extractor({**MOSAIKS, "seed": 4}).id
    np.testing.assert_array_equal(first(make_tiles()), again(make_tiles()))
    with pytest.raises(FeatureError, match="Seed 0"):
        make_extractor({**MOSAIKS, "seed": 0})


def test_random_features_are_whitened_to_no_more_components_than_they_have() -> None:
    assert make_extractor({**MOSAIKS, "features": 16}).components == 16
    assert make_extractor({**MOSAIKS, "features": 64}).components == 32


def test_random_features_stay_float32_while_training_is_in_half_precision() -> None:
    extractor = make_extractor(MOSAIKS)
    network, tiles = extractor.trainable(), make_tiles(size=20)
    with torch.autocast(extractor.device.type, torch.bfloat16):
        trained = network(torch.from_numpy(tiles).to(extractor.device))
        trained.sum().backward()
        computed = extractor(tiles)
    assert trained.dtype == torch.float32
    np.testing.assert_allclose(trained.detach().cpu(), computed, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(computed, extractor(tiles))
    assert {p.grad.dtype for p in network.parameters()} == {torch.float32}


def test_random_features_are_torchgeos_on_standardised_bands() -> None:
    spec = {**MOSAIKS, "features": 80, "statistics": {"red": [0.1, 0.1], "nir": [0.3, 0.2]}}
    tiles = make_tiles()
    scaled = (tiles - np.array([0.1, 0.3])[:, None, None]) / np.array([0.1, 0.2])[:, None, None]
    expected = RCF(2, 80, 3, bias=-1.0, seed=3)(torch.from_numpy(scaled.astype(np.float32)))
    np.testing.assert_allclose(make_extractor(spec)(tiles), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["mosaiks", "timm"])
def test_a_tile_without_data_has_no_features_and_a_gap_changes_little(
    kind: str, timm_spec: dict
) -> None:
    extractor = make_extractor(MOSAIKS if kind == "mosaiks" else timm_spec)
    tiles = make_tiles(n=3, bands=len(extractor.bands), size=24)
    whole = extractor(tiles)
    tiles[0] = np.nan
    tiles[1, :, :3, :3] = np.nan
    features = extractor(tiles)
    assert np.isnan(features[0]).all()
    assert not np.isnan(features[1:]).any()
    np.testing.assert_array_equal(features[2], whole[2])
    change = np.linalg.norm(features[1] - whole[1]) / np.linalg.norm(whole[1])
    assert 0 < change < 0.2


def test_features_do_not_depend_on_the_batch() -> None:
    extractor = make_extractor(MOSAIKS)
    tiles = make_tiles(n=7)
    one_by_one = np.concatenate([extractor(tile[None]) for tile in tiles])
    np.testing.assert_allclose(extractor(tiles), one_by_one, rtol=1e-5)
    assert extractor(tiles[:0]).shape == (0, 16)


def test_tiles_smaller_than_the_random_filters_are_refused() -> None:
    extractor = make_extractor({**MOSAIKS, "kernel_size": 5})
    assert np.isfinite(extractor(np.zeros((1, 2, 5, 5), np.float32))).all()
    with pytest.raises(FeatureError, match=r"Filters of 5 x 5 pixels .* found tiles of 4 x 6"):
        extractor(np.zeros((1, 2, 4, 6), np.float32))


def test_random_features_tell_brightness_and_texture_apart() -> None:
    extractor = make_extractor({**MOSAIKS, "features": 256})
    random = np.random.default_rng(1)
    smooth = np.full((4, 2, 24, 24), 0.15, np.float32)
    bright = smooth + 0.1
    rough = smooth + random.choice([-0.1, 0.1], smooth.shape)
    a, b, c = (extractor(tiles.astype(np.float32)) for tiles in (smooth, bright, rough))
    within = np.linalg.norm(c[0] - c[1])
    assert np.linalg.norm(a[0] - b[0]) > 3 * within
    assert np.linalg.norm(a[0] - c[0]) > 3 * within


def test_specs_that_cannot_be_built_are_refused(timm_spec: dict, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="kind 'clip'"):
        make_extractor({"kind": "clip"})
    with pytest.raises(FeatureError, match="filters"):
        make_extractor({**MOSAIKS, "filters": 3})
    with pytest.raises(FeatureError, match="even"):
        make_extractor({**MOSAIKS, "features": 15})
    with pytest.raises(FeatureError, match="'hh'"):
        make_extractor({**MOSAIKS, "bands": ["hh"]})
    assert make_extractor({**MOSAIKS, "bands": ["hh"], "statistics": {"hh": [-12, 4]}}).bands
    with pytest.raises(FeatureError, match="No checkpoint"):
        make_extractor({**timm_spec, "checkpoint": str(tmp_path / "none")})
    with pytest.raises(FeatureError, match="no architecture"):
        make_extractor({**timm_spec, "architecture": "resnet_of_nobody"})
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(FeatureError, match="not a readable"):
        make_extractor({**timm_spec, "checkpoint": str(tmp_path / "junk")})


def save_weights(path: Path, architecture: str, **options) -> dict:
    module = timm.create_model(architecture, num_classes=0, **options)
    save_file(module.state_dict(), path)
    return {"kind": "timm", "architecture": architecture, "checkpoint": str(path)}


def test_a_network_whose_head_lengthens_its_vectors(tmp_path: Path) -> None:
    spec = save_weights(tmp_path / "weights.safetensors", "mobilenetv3_small_050")
    extractor = make_extractor({**spec, "input_size": 32})
    assert extractor.dimensions == 1024
    assert extractor(make_tiles(2, bands=3)).shape == (2, 1024)


def test_networks_that_give_no_vectors_are_refused(tmp_path: Path, timm_spec: dict) -> None:
    with pytest.raises(FeatureError, match="global_pool"):
        make_extractor({**timm_spec, "options": {"global_pool": ""}})
    spec = save_weights(tmp_path / "weights.safetensors", "test_vit3")
    with pytest.raises(FeatureError, match="cannot read tiles of 32 x 32 pixels"):
        make_extractor({**spec, "input_size": 32})


def test_weights_that_do_not_fit_are_named(timm_spec: dict) -> None:
    extractor = make_extractor(timm_spec)
    tensors = extractor.tensors()
    gone = next(iter(tensors))
    tensors["extra"] = tensors.pop(gone)
    with pytest.raises(FeatureError, match=f"missing {gone}; unexpected extra"):
        restore_extractor(extractor.spec(), tensors)


def test_tiles_of_other_bands_are_refused() -> None:
    with pytest.raises(FeatureError, match="red, nir"):
        make_extractor(MOSAIKS)(make_tiles(bands=3))


@pytest.mark.parametrize("kind", ["mosaiks", "timm"])
def test_infinite_pixels_count_as_no_data(kind: str, timm_spec: dict) -> None:
    extractor = make_extractor(MOSAIKS if kind == "mosaiks" else timm_spec)
    tiles = make_tiles(bands=len(extractor.bands), size=24)
    tiles[0, 0, :3] = np.nan
    tiles[1] = np.nan
    expected = extractor(tiles)
    tiles[0, 0, 0], tiles[0, 0, 1] = np.inf, -np.inf
    tiles[1, 0] = np.inf
    np.testing.assert_array_equal(extractor(tiles), expected)


@pytest.mark.parametrize("kind", ["mosaiks", "timm"])
def test_fine_tuning_changes_the_weights_and_the_id(kind: str, timm_spec: dict) -> None:
    extractor = make_extractor(MOSAIKS if kind == "mosaiks" else timm_spec)
    tiles = make_tiles(bands=len(extractor.bands), size=24)
    tiles[0, 0, :3] = np.nan
    before = extractor(tiles)
    network = extractor.trainable()
    same = extractor.with_weights(network)
    assert (same.id, same.spec()) == (extractor.id, extractor.spec())
    np.testing.assert_array_equal(same(tiles), before)

    features = network(torch.from_numpy(tiles))
    np.testing.assert_allclose(features.detach(), before, rtol=1e-4, atol=1e-6)
    features.square().mean().backward()
    gradients = [weights.grad for weights in network.parameters()]
    assert gradients
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert sum(bool(g.abs().sum() > 0) for g in gradients) > len(gradients) // 2
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    tuned = extractor.with_weights(network)
    assert tuned.id != extractor.id
    assert tuned.spec() == extractor.spec()
    np.testing.assert_allclose(
        tuned(tiles), network(torch.from_numpy(tiles)).detach(), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(extractor(tiles), before)
    assert not any(weights.requires_grad for weights in tuned.tensors().values())
    with pytest.raises(FeatureError, match="found a Linear"):
        extractor.with_weights(torch.nn.Linear(2, 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_features_on_a_gpu_are_close_to_those_on_the_cpu(timm_spec: dict) -> None:
    extractor = make_extractor(timm_spec)
    tiles = make_tiles(bands=3, size=32)
    expected = extractor.to("cpu")(tiles)
    on_gpu = extractor.to("cuda")(tiles)
    assert on_gpu.dtype == np.float32
    np.testing.assert_allclose(on_gpu, expected, rtol=0.05, atol=0.05 * np.abs(expected).max())
    np.testing.assert_array_equal(extractor.to("cpu")(tiles), expected)


def test_scaling_centres_and_gives_one_length() -> None:
    features = np.random.default_rng(0).normal(5, 2, (50, 9)).astype(np.float32)
    features[7] = np.nan
    scaling = FeatureScaling.fit(features)
    scaled = scaling.apply(features)
    assert scaled.dtype == np.float32
    assert np.isnan(scaled[7]).all()
    rest = np.delete(scaled, 7, axis=0)
    np.testing.assert_allclose(np.linalg.norm(rest, axis=1), 3, rtol=1e-5)
    np.testing.assert_allclose(scaling.mean, np.nanmean(features, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(scaling.apply(scaling.mean[None]), 0)


def test_scaling_refuses_what_it_cannot_use() -> None:
    with pytest.raises(FeatureError, match="None of 3 tiles"):
        FeatureScaling.fit(np.full((3, 2), np.nan, np.float32))
    with pytest.raises(FeatureError, match="another extractor"):
        FeatureScaling(np.zeros(3, np.float32)).apply(np.zeros((2, 4), np.float32))
