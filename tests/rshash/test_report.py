import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rshash import report as report_module
from rshash.codes import pack, unpack
from rshash.errors import CodeError, FeatureError, RshashError
from rshash.evaluation import mean_average_precision
from rshash.report import CodedTiles, evaluate

PICTURES = {"precision_recall.png", "bit_balance.png", "distances.png"}


def tiles(n: int, seed: int) -> CodedTiles:
    """Four classes that the features tell apart, and the codes better still."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(4, 24))
    labels = random.integers(4, size=n)
    features = centres[labels] + random.normal(size=(n, 24))
    outputs = np.tanh((centres[labels] + random.normal(size=(n, 24)) / 2)[:, :16])
    learned = pack(centres[labels][:, :16])
    return CodedTiles(
        pack(outputs), labels, features.astype(np.float32), outputs.astype(np.float32), learned
    )


@pytest.fixture(scope="module")
def database() -> CodedTiles:
    return tiles(300, 0)


@pytest.fixture(scope="module")
def queries() -> CodedTiles:
    return tiles(40, 1)


def only(side: CodedTiles, *names: str) -> CodedTiles:
    return CodedTiles(side.codes, **{name: getattr(side, name) for name in names})


def test_the_method_stands_beside_its_baselines(
    database: CodedTiles, queries: CodedTiles, tmp_path: Path
) -> None:
    kept = "labels", "features"
    found = evaluate("mrhash", 16, only(database, *kept), only(queries, *kept))
    assert [entry.name for entry in found.entries] == [
        "mrhash, 16 bit",
        "float cosine, 24 dimensions",
        "sign of all dimensions, 24 bit",
        "LSH, 16 bit",
        "PCA-sign, 16 bit",
        "ITQ, 16 bit",
    ]
    assert [entry.bytes_per_tile for entry in found.entries] == [2, 96, 3, 2, 2, 2]
    own = found.entries[0]
    assert own.quality is not None
    assert own.quality.mean_ap == mean_average_precision(
        queries.codes, queries.labels, database.codes, database.labels
    )
    assert all(entry.quality.mean_ap < own.quality.mean_ap for entry in found.entries[3:])
    assert {entry.name for entry in found.entries if entry.agreement is None} == {
        "float cosine, 24 dimensions"
    }
    assert sum(map(sum, found.distances.values())) == 300 * 40
    assert all(len(counts) == 17 for counts in found.distances.values())
    files = found.save(tmp_path / "report")
    assert {file.name for file in files} == {"report.json", "report.md", *PICTURES}
    for name in PICTURES:
        with Image.open(tmp_path / "report" / name) as picture:
            assert picture.size == (704, 528)
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_learned_codes_give_an_asymmetric_ranking_too(
    database: CodedTiles, queries: CodedTiles, tmp_path: Path
) -> None:
    database = only(database, "labels", "learned")
    found = evaluate("ahcl", 16, database, only(queries, "labels", "outputs"))
    symmetric, asymmetric = found.entries
    assert (symmetric.name, asymmetric.name) == (
        "ahcl, 16 bit, symmetric",
        "ahcl, 16 bit, asymmetric",
    )
    assert symmetric.quality.mean_ap < asymmetric.quality.mean_ap
    assert list(found.statistics) == ["network codes", "learned codes"]
    assert found.statistics["learned codes"].distinct == 4
    found.save(tmp_path)
    assert "asymmetric" in (tmp_path / "report.md").read_text()


def test_without_labels_operational_measures_remain(database: CodedTiles, tmp_path: Path) -> None:
    found = evaluate("mrhash", 16, only(database, "features"))
    assert all(entry.quality is None for entry in found.entries)
    assert found.entries[0].agreement > 0.1
    # A tile is not paired with itself.
    assert sum(found.distances["all pairs"]) == 300 * 299
    files = found.save(tmp_path)
    assert {file.name for file in files} == {"report.json", "report.md", "bit_balance.png",
                                             "distances.png"}  # fmt: skip
    text = (tmp_path / "report.md").read_text()
    assert "mean AP" not in text and "agreement" in text and "No labels" in text
    assert database.features is not None
    lacking = database.features.copy()
    lacking[7] = np.nan
    with pytest.raises(FeatureError, match=r"features of the database are not finite.* row 7"):
        evaluate("mrhash", 16, CodedTiles(database.codes, features=lacking))
    bare = evaluate("mrhash", 16, CodedTiles(database.codes))
    assert len(bare.entries) == 1 and "No features: no baselines." in bare.notes


def test_tiles_of_the_table_are_the_queries_where_there_are_no_others(
    database: CodedTiles,
) -> None:
    found = evaluate("mrhash", 16, only(database, "labels"), max_queries=50, seed=3)
    assert "50 of 300 tiles of the database are the queries, drawn with seed 3." in found.notes
    rows = np.sort(np.random.default_rng(3).choice(300, 50, replace=False))
    codes, labels = database.codes, database.labels
    expected = [
        mean_average_precision(
            codes[[row]], labels[[row]], np.delete(codes, row, axis=0), np.delete(labels, row)
        )
        for row in rows
    ]
    assert found.entries[0].quality.mean_ap == pytest.approx(np.mean(expected))


def test_flips_since_the_version_before(database: CodedTiles) -> None:
    previous = unpack(database.codes, 16)
    previous[:75, :2] *= -1
    found = evaluate("mrhash", 16, CodedTiles(database.codes), previous=pack(previous))
    assert (found.flipped_bits, found.flipped_tiles) == (0.5, 0.25)


def test_the_same_input_gives_the_same_files(
    database: CodedTiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_module, "PROBE_TILES", 100)
    monkeypatch.setattr(report_module, "FITTED_TILES", 200)
    written = []
    for name in ("first", "second"):
        report = evaluate("mrhash", 16, only(database, "labels", "features"), max_queries=20)
        written.append({file.name: file.read_bytes() for file in report.save(tmp_path / name)})
    assert written[0] == written[1]


def test_the_json_holds_every_figure(
    database: CodedTiles, queries: CodedTiles, tmp_path: Path
) -> None:
    found = evaluate("mrhash", 16, only(database, "labels"), only(queries, "labels"))
    found.save(tmp_path)
    read = json.loads((tmp_path / "report.json").read_text())
    (entry,) = read["entries"]
    quality = found.entries[0].quality
    assert entry["quality"]["mean_ap"] == pytest.approx(quality.mean_ap, abs=1e-6)
    assert list(entry["quality"]["mean_ap_at"]) == ["20", "100"]
    assert len(entry["quality"]["precision"]) == len(entry["quality"]["ranks"])
    assert len(read["statistics"]["network codes"]["bit_balance"]) == 16
    assert read["flipped_bits"] is None
    assert f"{quality.mean_ap:.3f}" in (tmp_path / "report.md").read_text()


def test_what_does_not_fit_is_refused(database: CodedTiles, queries: CodedTiles) -> None:
    with pytest.raises(CodeError, match="128 bits"):
        evaluate("mrhash", 128, database)
    with pytest.raises(RshashError, match="row of labels: expected 300, found 299"):
        CodedTiles(database.codes, database.labels[1:])
    with pytest.raises(RshashError, match="labels both"):
        evaluate("mrhash", 16, only(database, "labels"), CodedTiles(queries.codes))
    with pytest.raises(RshashError, match="Nothing to evaluate"):
        evaluate("mrhash", 16, CodedTiles(database.codes[:0]))
