import numpy as np
import pandas as pd
import pytest
from published_world import SENSOR, index, make_model, publish_segment, random_codes, tiles

from data_catalog import quality_gate
from data_catalog.catalogue import Catalogue
from data_catalog.code_merging import as_arrow
from data_catalog.code_tables import (
    ProposedCodes,
    code_rows,
    codes_of,
    collection_of,
    publish_code_tables,
    published_table,
)
from data_catalog.current_view import current_view
from data_catalog.errors import CatalogueError
from data_catalog.models import publish_model
from data_catalog.quality_gate import assess, keep_back, kept_back, publish_kept_back
from rshash.quality import Thresholds

COUNT = 40


@pytest.fixture
def model(catalogue: Catalogue):
    model = make_model()
    publish_model(catalogue, model)
    return model


def rows(count: int = COUNT, day: str = "2024-06-01", seed: int = 0) -> pd.DataFrame:
    return code_rows(index(tiles(count), day), random_codes(count, seed=seed))


def codes(catalogue: Catalogue, model) -> dict[str, int]:
    items = catalogue.items(collection_of(model.model_id))
    table = pd.concat([published_table(catalogue, item) for item in items])
    return dict(zip(table["tile_id"], table["code_0"], strict=True))


def proposed(catalogue: Catalogue, model, new: pd.DataFrame) -> ProposedCodes:
    seen: list[ProposedCodes] = []

    def stop(codes: ProposedCodes) -> None:
        seen.append(codes)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        publish_code_tables(catalogue, model, new, stop)
    return seen[0]


def test_the_gate_sees_all_codes_and_the_flips_of_new_ones(catalogue: Catalogue, model) -> None:
    publish_code_tables(catalogue, model, rows())
    new = rows(COUNT + 5, "2024-06-02", seed=1).iloc[10:]
    found = proposed(catalogue, model, new)
    assert found.table["tile_id"].to_pylist() == sorted(tile.id for tile in tiles(COUNT + 5))
    before, after = codes_of(rows(), 64)[10:], codes_of(new, 64)[: COUNT - 10]
    flips = np.bitwise_count(before ^ after).sum(1)
    assert sorted(found.flipped_bits) == sorted(flips)


def test_codes_are_measured_on_the_same_tiles_every_time(
    catalogue: Catalogue, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_gate, "PROBE_TILES", 25)
    publish_segment(catalogue, "one", index(tiles(COUNT)))
    view = current_view(catalogue, SENSOR)
    asked: list[list[str]] = []

    def features(catalogue, sensor, seen, extractor):
        asked.append(seen["tile_id"].tolist())
        random = np.random.default_rng(0)
        return random.normal(size=(len(seen), extractor.dimensions)).astype(np.float32)

    monkeypatch.setattr(quality_gate, "observation_features", features)
    frame = rows().assign(model_id="m")

    def proposed(some: pd.DataFrame) -> ProposedCodes:
        return ProposedCodes(as_arrow(some, 64), np.zeros(0, np.int64))

    measures = assess(catalogue, model, proposed(frame), view, Thresholds())
    assert [one.name for one in measures] == [
        "distinct codes",
        "bit balance",
        "agreement with features",
    ]
    shuffled = frame.sample(frac=1, random_state=0)
    assess(catalogue, model, proposed(shuffled), view, Thresholds())
    assert sorted(asked[0]) == sorted(asked[1]) and len(asked[0]) == 25
    # A code of an observation that is no longer current says nothing of the current pixels.
    old = frame.assign(datetime=pd.Timestamp("2023-06-01", tz="UTC"))
    measures = assess(catalogue, model, proposed(old), view, Thresholds())
    assert [one.name for one in measures] == ["distinct codes", "bit balance"]


def test_what_is_kept_back_can_be_looked_at_and_published(catalogue: Catalogue, model) -> None:
    with pytest.raises(CatalogueError, match="nothing to approve"):
        kept_back(catalogue, model.model_id)
    publish_code_tables(catalogue, model, rows(day="2024-06-02"))
    before = codes(catalogue, model)
    new = rows(COUNT + 5, "2024-06-03", seed=1)
    first = keep_back(catalogue, model.model_id, rows(COUNT, "2024-06-03", seed=3), [])
    kept = keep_back(catalogue, model.model_id, new, [])
    assert codes(catalogue, model) == before
    pd.testing.assert_frame_equal(pd.read_parquet(kept.folder / "codes.parquet"), new)
    # Somebody was asked about the first ones.
    with pytest.raises(CatalogueError, match="another run's by now"):
        publish_kept_back(catalogue, model, first.fingerprint)
    assert codes(catalogue, model) == before
    # Meanwhile another run has published something newer of ten of the tiles.
    publish_code_tables(catalogue, model, rows(10, "2024-06-04", seed=2))
    [report] = publish_kept_back(catalogue, model, kept.fingerprint)
    assert (report["appeared"], report["version"]) == (5, 3)
    expected = codes_of(new, 64)[:, 0].copy()
    expected[:10] = codes_of(rows(10, seed=2), 64)[:, 0]
    assert codes(catalogue, model) == dict(zip(new["tile_id"], expected, strict=True))
    with pytest.raises(CatalogueError, match="nothing to approve"):
        publish_kept_back(catalogue, model)
