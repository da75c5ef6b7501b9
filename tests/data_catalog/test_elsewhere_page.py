"""What is published is read by other people's tools alone, as the documentation shows."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import zarr
from published_world import BANDS, SENSOR, index, make_model, publish_segment, tiles
from safetensors.torch import save_file

from data_catalog.catalogue import Catalogue
from data_catalog.code_tables import collection_of, publish_code_tables, published_table
from data_catalog.encoding import encode_observations
from data_catalog.models import publish_model
from data_catalog.observations import current_observations
from rshash.features import make_extractor
from rshash.head import HashHead
from rshash.model import Model
from rshash.scaling import FeatureScaling

PAGE = Path(__file__).parents[2] / "docs" / "elsewhere.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
WALK, _, TABLE_OF_ITEMS, GEOPANDAS, DUCKDB, PYTORCH, TIMM = EXAMPLES

ALONE = """
import sys
sys.modules.update(dict.fromkeys(("rshash", "data_catalog", "flows")))  # importing them fails
"""


def timm_model(folder: Path) -> Model:
    torch.manual_seed(2)
    network = timm.create_model("test_resnet", num_classes=0)
    save_file(network.state_dict(), folder / "network.safetensors")
    extractor = make_extractor(
        {
            "kind": "timm",
            "architecture": "test_resnet",
            "bands": list(BANDS),
            "checkpoint": folder / "network.safetensors",
            "input_size": 64,
        }
    )
    mean = np.linspace(-1, 1, extractor.dimensions, dtype=np.float32)
    head = HashHead(extractor.dimensions, 64, hidden=8).eval()
    return replace(make_model(), extractor=extractor, scaling=FeatureScaling(mean), head=head)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("elsewhere"), make_model())


def published(folder: Path, model: Model) -> Path:
    catalogue = Catalogue.create(folder / "catalogue")
    publish_segment(catalogue, "one", index(tiles(6)))
    segment = catalogue.root / f"tiles-{SENSOR}" / "one" / "pixels.zarr"
    array = zarr.open_group(segment, mode="r+")["reflectance"]
    assert isinstance(array, zarr.Array)
    random = np.random.default_rng(0)
    brightness = random.integers(1, 4000, (6, len(BANDS), 1, 1), np.uint16)
    array[:] = brightness + random.integers(0, 500, array.shape, np.uint16)
    publish_model(catalogue, model)
    codes = encode_observations(catalogue, model, current_observations(catalogue, SENSOR))
    publish_code_tables(catalogue, model, codes)
    return folder


def run(example: str, folder: Path, wanted: str) -> Any:
    """What an example leaves in JSON, run where rshash cannot be imported."""
    program = f"{ALONE}{example}\nimport json\nprint('\\n' + json.dumps({wanted}))"
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def published_codes(folder: Path) -> Any:
    catalogue = Catalogue.open(folder / "catalogue")
    [item] = catalogue.items(collection_of(catalogue.model_id()))
    return published_table(catalogue, item)


def test_pystac_finds_everything(folder: Path) -> None:
    found = run(
        WALK, folder, "[[c.id, [i.id for i in c.get_items()]] for c in catalogue.get_children()]"
    )
    catalogue = Catalogue.open(folder / "catalogue")
    assert found == [[name, catalogue.item_ids(name)] for name in catalogue.collections()]


def test_items_become_a_table(folder: Path) -> None:
    run(TABLE_OF_ITEMS, folder, "None")
    wanted = "gpd.read_parquet('segments.parquet')['id'].tolist()"
    assert run("import geopandas as gpd", folder, wanted) == ["one"]


def test_geopandas_reads_codes(folder: Path) -> None:
    ids = published_codes(folder)["tile_id"].tolist()
    assert run(GEOPANDAS, folder, "table['tile_id'].tolist()") == ids
    assert run(GEOPANDAS, folder, "[len(clear), str(table.crs)]") == [0, "OGC:CRS84"]


def test_duckdb_finds_the_nearest(folder: Path) -> None:
    table = published_codes(folder).set_index("tile_id")["code_0"]
    query = "UTM1920-32N_0176_2888"
    distances = sorted(
        ((int(code) ^ int(table[query])).bit_count(), tile_id)
        for tile_id, code in table.items()
        if tile_id != query
    )
    found = run(DUCKDB, folder, "nearest[['distance', 'tile_id']].values.tolist()")
    assert [tuple(row) for row in found] == distances


def test_a_model_makes_the_published_code_in_plain_pytorch(folder: Path) -> None:
    table = published_codes(folder).set_index("tile_id")
    assert run(PYTORCH, folder, "code_0") == int(table["code_0"][tiles(6)[0].id])
    assert table["code_0"].nunique() > 1


def test_so_does_one_with_a_network_of_timm(tmp_path: Path) -> None:
    folder = published(tmp_path, timm_model(tmp_path))
    before, _, after = PYTORCH.partition("statistics = ")
    after = after.partition('weights["scaling.mean"]\n')[2]
    table = published_codes(folder).set_index("tile_id")
    assert run(before + TIMM + after, folder, "code_0") == int(table["code_0"][tiles(6)[0].id])
    assert table["code_0"].nunique() > 1
    [item] = Catalogue.open(folder / "catalogue").items("models")
    assert "test_resnet" in item.properties["mlm:architecture"]
