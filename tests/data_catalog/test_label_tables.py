from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_world import index, make_model, publish_segment, tiles

from data_catalog.catalogue import Catalogue
from data_catalog.errors import CatalogueError
from data_catalog.grid import footprints
from data_catalog.labels import load_labels, published_labels, read_labels
from data_catalog.models import publish_pseudo_labels
from rshash.errors import LabelError

TILES = tiles(6)
IDS = [tile.id for tile in TILES]


def table(folder: Path, kind: str, **columns) -> Path:
    """A table of labels of some tiles in one of the formats."""
    frame = pd.DataFrame(columns)
    path = folder / f"labels.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        gpd.GeoDataFrame(frame, geometry=footprints(TILES[: len(frame)]), crs=4326).to_parquet(path)
    return path


def classes_by_tile(labels) -> dict[str, set[str]]:
    return {
        tile_id: {name for name, is_of in zip(labels.classes, row, strict=True) if is_of}
        for tile_id, row in zip(labels.tile_ids, labels.values, strict=True)
    }


@pytest.mark.parametrize("kind", ["csv", "parquet", "geoparquet"])
def test_one_class_per_tile(tmp_path, kind):
    path = table(tmp_path, kind, tile_id=IDS[:3], label=["forest", "lake", "forest"])
    labels = read_labels(path, IDS, 0.5)
    assert labels.classes == ("forest", "lake") and labels.is_single
    assert classes_by_tile(labels) == dict(
        zip(IDS[:3], [{"forest"}, {"lake"}, {"forest"}], strict=True)
    )


def test_what_published_tables_say_of_a_tile_is_no_class(tmp_path):
    about = (
        index(TILES[:2])
        .drop(columns=["geometry", "tile_id"])
        .assign(segment_id="s", code_source="network", model_id="m", code_0=np.uint64(1))
    )
    classes = {"forest": [0.9, 0.1], "lake": [0.1, 0.9]}
    path = table(tmp_path, "parquet", tile_id=IDS[:2], **about.to_dict("list"), **classes)
    assert read_labels(path, IDS, 0.5).classes == ("forest", "lake")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_numbers_are_classes_in_their_order(tmp_path, kind):
    labels = read_labels(table(tmp_path, kind, tile_id=IDS[:3], label=[10, 9, 10]), IDS, 0.5)
    assert labels.classes == ("9", "10")


def test_a_csv_keeps_names_that_look_like_something_else(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(f"\ufefftile_id,label\n{IDS[0]},NA\n{IDS[1]},007\n", encoding="utf-8")
    assert set(read_labels(path, IDS, 0.5).classes) == {"NA", "007"}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("csv", ["forest; lake", "lake", "city"]),
        ("parquet", ["forest;lake", "lake", "city"]),
        ("parquet", [["forest", "lake"], ["lake"], ["city"]]),
    ],
)
def test_several_classes_per_tile(tmp_path, kind, values):
    labels = read_labels(table(tmp_path, kind, tile_id=IDS[:3], labels=values), IDS, 0.5)
    assert labels.classes == ("city", "forest", "lake")
    assert classes_by_tile(labels)[IDS[0]] == {"forest", "lake"}


@pytest.mark.parametrize("kind", ["csv", "parquet", "geoparquet"])
def test_a_column_per_class(tmp_path, kind):
    columns = {"forest": [0.7, 0.2, 0.1], "lake": [0.3, 0.8, 0.1]}
    labels = read_labels(table(tmp_path, kind, tile_id=IDS[:3], **columns), IDS, 0.3)
    assert classes_by_tile(labels) == {IDS[0]: {"forest", "lake"}, IDS[1]: {"lake"}}
    columns = {"forest": [True, False], "lake": [True, True]}
    labels = read_labels(table(tmp_path, kind, tile_id=IDS[:2], **columns), IDS, 1.0)
    assert classes_by_tile(labels) == {IDS[0]: {"forest", "lake"}, IDS[1]: {"lake"}}


@settings(max_examples=25)
@given(st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), min_size=2, max_size=6))
def test_however_labels_are_written_they_say_the_same(tmp_path_factory, sets):
    if len(set().union(*sets)) < 2:
        return
    folder = tmp_path_factory.mktemp("same")
    ids = IDS[: len(sets)]
    names = sorted(set().union(*sets))
    texts = [";".join(sorted(one)) for one in sets]
    columns = {name: [name in one for one in sets] for name in names}
    written = [
        table(folder, "csv", tile_id=ids, labels=texts),
        table(folder, "parquet", tile_id=ids, labels=[sorted(one) for one in sets]),
        table(folder, "geoparquet", tile_id=ids, **columns),
    ]
    for path in written:
        labels = read_labels(path, IDS, 0.5)
        assert labels.classes == tuple(names)
        assert classes_by_tile(labels) == dict(zip(ids, sets, strict=True))


def test_a_row_that_repeats_another_counts_once(tmp_path):
    path = table(tmp_path, "csv", tile_id=[IDS[0], IDS[1], IDS[0]], label=["a", "b", "a"])
    assert read_labels(path, IDS, 0.5).tile_ids == (IDS[0], IDS[1])


BAD_TABLES = {
    "no tile_id": ({"tile": IDS[:2], "label": ["a", "b"]}, "has no column tile_id.*tile, label"),
    "no labels": ({"tile_id": IDS[:2]}, "has no column of labels"),
    "both": ({"tile_id": IDS[:2], "label": ["a", "b"], "labels": ["a", "b"]}, "keep one of them"),
    "empty": ({"tile_id": [], "label": []}, "has no rows"),
    "malformed": (
        {"tile_id": [IDS[0], "UTM1920-32N_1"], "label": ["a", "b"]},
        r"labels\.csv, line 3, tile UTM1920-32N_1: .*malformed",
    ),
    "unknown": (
        {"tile_id": [IDS[0], "UTM1920-32N_0300_2888"], "label": ["a", "b"]},
        r"line 3, tile UTM1920-32N_0300_2888 is not among the catalogue's 6 tiles",
    ),
    "other size": (
        {"tile_id": ["UTM960-32N_0300_2888", IDS[0]], "label": ["a", "b"]},
        r"line 2, tile UTM960-\S+ is not among the catalogue's 6 tiles \(UTM1920\)",
    ),
    "disagreeing": (
        {"tile_id": [IDS[0], IDS[1], IDS[0]], "label": ["a", "b", "b"]},
        rf"line 4, tile {IDS[0]} has other labels than in .*line 2",
    ),
    "disagreeing fractions": (
        {"tile_id": [IDS[0], IDS[1], IDS[0]], "a": [0.5, 1, 0.6], "b": [0.5, 0, 0.5]},
        r"line 4, .* has other labels than in .*line 2",
    ),
    "no label": (
        {"tile_id": IDS[:2], "label": ["a", ""]},
        "line 3.*'' in column label is no class",
    ),
    "gap": ({"tile_id": IDS[:2], "labels": ["a;b", "a;;b"]}, "line 3.*column labels is no class"),
    "one class": ({"tile_id": IDS[:2], "label": ["a", "a"]}, r"of one class \(a\)"),
    "percent": (
        {"tile_id": IDS[:2], "a": [0.4, 37.0], "b": [0.1, 63.0]},
        r"line 3.*'37\.0' in column 'a' is no fraction.*divide it by 100",
    ),
    "nan": ({"tile_id": IDS[:2], "a": [0.4, np.nan], "b": [0.6, 1.0]}, "line 3.*column 'a' is no"),
    "text": ({"tile_id": IDS[:2], "a": [0.4, 0.5], "name": ["x", "y"]}, "line 2.*'x' in column 'n"),
}


@pytest.mark.parametrize("bad", BAD_TABLES)
def test_what_is_wrong_with_a_table_is_told_with_its_place(tmp_path, bad):
    columns, message = BAD_TABLES[bad]
    with pytest.raises(LabelError, match=message) as error:
        read_labels(table(tmp_path, "csv", **columns), IDS, 0.5)
    assert str(tmp_path / "labels.csv") in str(error.value)


def test_rows_of_a_parquet_file_are_told_by_number_and_may_hold_nothing(tmp_path):
    path = table(tmp_path, "parquet", tile_id=IDS[:3], label=["a", None, "b"])
    with pytest.raises(LabelError, match=rf"row 2, tile {IDS[1]}: \w+ in column label"):
        read_labels(path, IDS, 0.5)
    path = table(tmp_path, "parquet", tile_id=IDS[:3], label=[1.0, np.nan, 2.0])
    with pytest.raises(LabelError, match=r"row 2.*nan in column label"):
        read_labels(path, IDS, 0.5)
    path = table(tmp_path, "parquet", tile_id=IDS[:2], labels=[["a", "b"], []])
    with pytest.raises(LabelError, match=r"row 2.*in column labels is no class"):
        read_labels(path, IDS, 0.5)


@pytest.mark.parametrize("content", [b"PAR1 and no more", b"\xff\xfe\x00t", b""])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "labels.parquet"
    path.write_bytes(content)
    with pytest.raises(LabelError, match=r"labels\.parquet cannot be read as a table"):
        read_labels(path, IDS, 0.5)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    catalogue = Catalogue.create(tmp_path_factory.mktemp("labels") / "catalogue")
    publish_segment(catalogue, "night", index(TILES))
    probabilities = np.array(
        [[0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.34, 0.33, 0.33], [0.0, 0.1, 0.9]], np.float32
    )
    publish_pseudo_labels(catalogue, make_model(), IDS[:4], probabilities)
    return catalogue


def test_pseudo_labels_are_cut_at_a_probability(catalogue):
    [collection] = [one for one in catalogue.collections() if one.startswith("labels-")]
    labels = load_labels(catalogue, collection, IDS, 0.4)
    assert labels.classes == ("0", "1", "2")
    assert classes_by_tile(labels) == dict(
        zip(IDS[:4], [{"0", "1"}, {"1"}, {"0"}, {"2"}], strict=True)
    )
    assert load_labels(catalogue, collection, IDS[1:3], 0.4).tile_ids == tuple(IDS[1:3])
    with pytest.raises(LabelError, match="labels none of the 2 tiles"):
        load_labels(catalogue, collection, IDS[4:], 0.4)


def test_labels_are_found_by_path_or_collection_or_refused(catalogue, tmp_path):
    path = table(tmp_path, "csv", tile_id=IDS[:2], label=["a", "b"])
    assert load_labels(catalogue, str(path), IDS, 0.5).classes == ("a", "b")
    with pytest.raises(LabelError, match=r"No labels at 'labels-none': .*labels-mrhash-64-"):
        load_labels(catalogue, "labels-none", IDS, 0.5)
    with pytest.raises(LabelError, match="holds no labels"):
        published_labels(catalogue, "tiles-sentinel-2-l2a", IDS, 0.5)
    with pytest.raises(CatalogueError, match="'labels-none' is not in"):
        published_labels(catalogue, "labels-none", IDS, 0.5)


@pytest.mark.parametrize("collection", ["labels-mrhash-64-0", "land-cover-esa-worldcover"])
def test_a_collection_whose_publication_was_cut_off_is_refused(tmp_path, monkeypatch, collection):
    catalogue = Catalogue.create(tmp_path / "catalogue")
    catalogue.asset_folder(collection, "one")
    with monkeypatch.context() as cut:
        cut.setattr(catalogue, "_switch_pointer", Mock(side_effect=InterruptedError))
        with pytest.raises(InterruptedError):
            catalogue.publish(collection, pystac.Item("one", None, None, datetime.now(UTC), {}))
    assert collection in catalogue.collections()
    with pytest.raises(LabelError, match=f"'{collection}' is empty: .* Publish labels anew"):
        load_labels(catalogue, collection, IDS, 0.5)
