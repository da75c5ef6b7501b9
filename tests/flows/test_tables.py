from flows.tables import duration, markdown_table, print_contents, print_rows

ROWS = [
    {"sensor": "fine", "tiles": 12345, "bytes": 1_500_000},
    {"sensor": "coarse", "tiles": 2, "not_clear": 3},
]


def test_a_markdown_table_has_a_line_per_row() -> None:
    assert markdown_table(ROWS).splitlines() == [
        "| sensor | tiles | bytes | not clear |",
        "| --- | ---: | ---: | ---: |",
        "| fine | 12,345 | 1.5 MB |  |",
        "| coarse | 2 |  | 3 |",
    ]
    assert markdown_table([{"cause": "a|b\nc"}]).splitlines()[2] == "| a\\|b c |"
    assert markdown_table([]) == "Nothing."


def test_a_markdown_table_with_many_columns_is_turned_on_its_side() -> None:
    wide = [{"sensor": "fine", **{f"n{i}": i for i in range(6)}}]
    assert markdown_table(wide).splitlines()[:3] == [
        "| sensor | fine |",
        "| --- | --- |",
        "| n0 | 0 |",
    ]


def test_durations_are_told_as_people_do() -> None:
    rows = [{"sensor": "fine", "duration": seconds} for seconds in (0.2, 59, 61, 7200)]
    told = [line.split(" | ")[1].rstrip(" |") for line in markdown_table(rows).splitlines()[2:]]
    assert told == ["1 s", "59 s", "2 min", "2 h"]
    exact = [duration(seconds) for seconds in (0.21, 12.3, 59.7, 200, 7500)]
    assert exact == ["0.2 s", "12 s", "60 s", "3 min 20 s", "2 h 5 min"]


def test_rows_are_printed_whole(capsys) -> None:
    print_rows(ROWS, "Tiles")
    shown = capsys.readouterr().out
    for text in ("Tiles", "sensor", "not clear", "fine", "coarse", "12,345", "1.5 MB"):
        assert text in shown
    print_rows([], "Tiles")
    assert capsys.readouterr().out == "Tiles: nothing\n"


def test_a_catalogue_is_listed_by_collection(capsys) -> None:
    row = {"collection": "tiles-fine", "version": "1", "rows": 1200, "size": 2048, "in_use": False}
    rows = [{**row, "item": item, "published": "2024-06-18T10:20:30Z"} for item in ("a", "b")]
    print_contents(rows, "Published")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["Published", "item", "tiles-fine", "a", "b"]
    assert lines[-1].split() == ["b", "1", "1,200", "2024-06-18", "10:20", "2.0", "kB"]
    print_contents([], "Published")
    assert capsys.readouterr().out == "Published: nothing\n"
