from flows.tables import markdown_table, print_contents, print_rows

ROWS = [
    {"sensor": "fine", "tiles": 12345, "bytes": 1_500_000},
    {"sensor": "coarse", "tiles": 2, "not_clear": 3},
]


def test_a_markdown_table_has_a_line_per_key() -> None:
    assert markdown_table(ROWS).splitlines() == [
        "| sensor | fine | coarse |",
        "| --- | --- | --- |",
        "| tiles | 12,345 | 2 |",
        "| bytes | 1.5 MB |  |",
        "| not clear |  | 3 |",
    ]


def test_durations_are_told_as_people_do() -> None:
    rows = [{"sensor": "fine", "duration": seconds} for seconds in (0.2, 59, 61, 7200)]
    assert markdown_table(rows).splitlines()[2] == "| duration | 1 s | 59 s | 2 min | 2 h |"


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
