import json
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from rshash import checkpoints
from rshash.checkpoints import INDEX_FILE, Checkpoint, StageState, fingerprint
from rshash.errors import CheckpointError, TrainingError
from rshash.streaming import FeatureFile

IDENTITY = {"method": "mrhash", "settings": {"bits": 64, "seed": 0}, "shapes": [[10, 4], [10, 6]]}
WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(3)}


def saved(folder: Path, epoch: int = 2) -> Checkpoint:
    checkpoint = Checkpoint(folder, IDENTITY)
    checkpoint.save("hashing", epoch, [0.5] * epoch, WEIGHTS, {"stale": 1})
    return checkpoint


def assert_saved(state: StageState | None, epoch: int) -> None:
    assert state is not None
    assert (state.epoch, state.losses, state.values) == (epoch, [0.5] * epoch, {"stale": 1})
    assert state.tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(state.tensors[name], WEIGHTS[name]) for name in WEIGHTS)


def test_what_is_saved_is_loaded_by_another_process(tmp_path: Path) -> None:
    first = saved(tmp_path / "run")
    first.keep("centres", {"centres": torch.eye(3)})
    assert_saved(first.load("hashing"), 2)
    again = Checkpoint(tmp_path / "run", IDENTITY)
    assert_saved(again.load("hashing"), 2)
    assert torch.equal(again.kept("centres")["centres"], torch.eye(3))
    assert again.load("autoencoder") is None
    assert again.kept("labels") is None


def test_channels_last_weights_are_saved(tmp_path: Path) -> None:
    weights = torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last)
    checkpoint = Checkpoint(tmp_path, IDENTITY)
    checkpoint.keep("backbone", {"weights": weights})
    assert torch.equal(checkpoint.kept("backbone")["weights"], weights)


def test_an_identity_of_numpys_numbers_is_that_of_pythons(tmp_path: Path) -> None:
    saved(tmp_path)
    identity = {
        "method": np.str_("mrhash"),
        "settings": {"bits": np.int64(64), "seed": np.uint8(0)},
        "shapes": np.array([[10, 4], [10, 6]]),
    }
    assert_saved(Checkpoint(tmp_path, identity).load("hashing"), 2)
    with pytest.raises(CheckpointError, match=r"seed was 0 and is 0\.5"):
        Checkpoint(tmp_path, {**IDENTITY, "settings": {"bits": 64, "seed": np.float32(0.5)}})


def test_every_save_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    for epoch in range(1, 5):
        saved(tmp_path, epoch)
    assert_saved(Checkpoint(tmp_path, IDENTITY).load("hashing"), 4)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_that_grows_too_large_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    before = sorted(tmp_path.iterdir())
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limit[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot be written: .*Free some space"):
            saved(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert sorted(tmp_path.iterdir()) == before
    assert_saved(Checkpoint(tmp_path, IDENTITY).load("hashing"), 1)


@pytest.mark.parametrize("replacements", [0, 1], ids=["in the tensors", "before the index"])
def test_ended_while_saving_it_holds_the_state_before(
    replacements: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = saved(tmp_path, 2)
    whole = Path.replace
    calls = []

    def replace(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) > replacements:
            raise KeyboardInterrupt
        return whole(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save("hashing", 3, [0.5] * 3, WEIGHTS, {"stale": 1})
    monkeypatch.undo()
    assert_saved(Checkpoint(tmp_path, IDENTITY).load("hashing"), 2)
    assert_saved(saved(tmp_path, 3).load("hashing"), 3)


def test_another_trainings_state_is_refused_naming_what_differs(tmp_path: Path) -> None:
    saved(tmp_path)
    other = {"method": "mrhash", "settings": {"bits": 32, "seed": 0}, "shapes": [[9, 4], [9, 6]]}
    with pytest.raises(
        CheckpointError,
        match=r"settings\.bits was 64 and is 32; shapes was \[\[10, 4\], .*\[\[9, 4\], \[9, 6\]\]",
    ):
        Checkpoint(tmp_path, other)
    with pytest.raises(CheckpointError, match=r"settings\.dropout was null and is 0\.5\. "):
        Checkpoint(tmp_path, {**IDENTITY, "settings": {**IDENTITY["settings"], "dropout": 0.5}})
    assert issubclass(CheckpointError, TrainingError)


def test_another_versions_state_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    monkeypatch.setattr(checkpoints, "TRAINING_VERSION", checkpoints.TRAINING_VERSION + 1)
    with pytest.raises(CheckpointError, match=r"training_version was \d+ and is \d+\. Train"):
        Checkpoint(tmp_path, IDENTITY)


@pytest.mark.parametrize("damage", ["cut off", "changed", "gone"])
def test_damaged_tensors_are_refused(damage: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    content = path.read_bytes()
    if damage == "cut off":
        path.write_bytes(content[:-3])
    elif damage == "changed":
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=rf"{path.name}.*Delete the folder"):
        Checkpoint(tmp_path, IDENTITY).load("hashing")


@pytest.mark.parametrize(
    "content", ["", '{"format": 1', "[]", '{"format": 1}', json.dumps({"format": 2})]
)
def test_a_damaged_index_is_refused(content: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / INDEX_FILE).write_text(content)
    with pytest.raises(CheckpointError, match=r"checkpoint\.json.*Delete the folder"):
        Checkpoint(tmp_path, IDENTITY)


def test_tensors_that_share_memory_are_saved(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, IDENTITY)
    shared = torch.ones(4)
    checkpoint.keep("weights", {"a": shared, "b": shared, "c": shared.expand(3, 4).T})
    assert torch.equal(checkpoint.kept("weights")["c"], torch.ones(4, 3))


def test_data_is_known_by_shape_type_and_values(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(9000, 3)).astype(np.float32)
    changed = array.copy()
    changed[8999, 2] += 1e-3
    others = [changed, array[:-1], array.astype(np.float16), array.reshape(3000, 9)]
    assert len({fingerprint(rows) for rows in [array, *others]}) == 5
    with FeatureFile.create(tmp_path / "a.npy", array.shape, np.float32) as writer:
        writer.append(array)
    assert fingerprint(FeatureFile.open(tmp_path / "a.npy")) == fingerprint(array)
    assert fingerprint(np.asfortranarray(array)) == fingerprint(array)
