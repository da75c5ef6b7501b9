import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "learning.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=["mrhash", "ahcl", "pixels"])
def test_the_examples_of_the_documentation_work(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(example.split("\n")) <= 13
    random = np.random.default_rng(0)
    classes = random.integers(4, size=200)
    for name, dimensions in (("coarse", 24), ("fine", 32)):
        features = 3 * np.eye(4, dimensions)[classes] + random.normal(size=(200, dimensions))
        np.save(tmp_path / f"{name}.npy", features.astype(np.float32))
        if f"[{name}" in example or f'features, classes = np.load("{name}' in example:
            np.save(tmp_path / "queries.npy", features[:7].astype(np.float32))
    np.save(tmp_path / "classes.npy", classes)
    tiles = (
        random.random((200, 3, 8, 8), np.float32)
        * np.linspace(0.1, 0.4, 4)[classes, None, None, None]
    )
    np.save(tmp_path / "tiles.npy", tiles.astype(np.float32))
    np.save(tmp_path / "query_tiles.npy", tiles[:7].astype(np.float32))
    monkeypatch.chdir(tmp_path)
    found: dict[str, np.ndarray] = {}
    exec(example, found)
    assert found["queries"].shape == (7, 1)
    if "rows" in found:
        assert found["rows"].shape == (7, 10)
        assert (classes[found["rows"]] == classes[:7, None]).mean() > 0.6
