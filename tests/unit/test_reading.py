"""Reading catalog items: formats, what makes a row bad, what makes a file bad."""

import csv
import gzip
import json
import sys
from datetime import date
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet

from reclane.errors import ItemsInvalid, MissingExtra
from reclane_worker import reading
from reclane_worker.reading import BadRow, Columns, SourceItem, read_items

HEAT = SourceItem("1", "Heat", "A heist.", {"year": 1995, "genres": ["crime", "drama"]})
HEAT_ROW = {
    "id": "1",
    "title": "Heat",
    "text": "A heist.",
    "year": 1995,
    "genres": ["crime", "drama"],
}
HEAT_CSV = "id,title,text,year,genres[]\n1,Heat,A heist.,1995,crime|drama\n"
HEAT_TSV = HEAT_CSV.replace(",", "\t")


def read(path: Path, columns: Columns | None = None) -> tuple[list[SourceItem], list[BadRow]]:
    bad: list[BadRow] = []
    return list(read_items(path, columns or Columns(), bad.append)), bad


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_parquet(path: Path, columns: dict[str, object]) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def bad_json(tmp_path: Path, line: str | bytes) -> list[BadRow]:
    data = line.encode() if isinstance(line, str) else line
    items, bad = read(write(tmp_path / "items.jsonl", b'{"id": "0", "title": "x"}\n' + data))
    assert [item.id for item in items] == ["0"]
    return bad


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".jsonl", json.dumps(HEAT_ROW)),
        (".ndjson", json.dumps(HEAT_ROW)),
        (".json", json.dumps(HEAT_ROW)),
        (".csv", HEAT_CSV),
        (".tsv", HEAT_TSV),
        (".CSV", HEAT_CSV),
    ],
)
def test_text_formats_give_the_same_item_plain_and_gzipped(
    tmp_path: Path, ending: str, content: str, gz: str
) -> None:
    assert read(write(tmp_path / f"items{ending}{gz}", content)) == ([HEAT], [])


def test_parquet_gives_the_same_item(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "items.parquet", {k: [v] for k, v in HEAT_ROW.items()})
    assert read(path) == ([HEAT], [])


@pytest.mark.parametrize("name", ["items.xlsx", "items", "items.parquet.gz", "items.gz"])
def test_an_unknown_ending_is_refused_with_the_supported_ones(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "")
    with pytest.raises(ItemsInvalid, match=r"supported are \.jsonl.*\.parquet"):
        read_items(path, Columns(), print)


def test_a_missing_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ItemsInvalid, match="no such file"):
        read_items(tmp_path / "items.jsonl", Columns(), print)


@pytest.mark.parametrize(
    ("name", "content"), [("i.jsonl", json.dumps(HEAT_ROW)), ("i.csv", HEAT_CSV)]
)
def test_a_byte_order_mark_is_ignored(tmp_path: Path, name: str, content: str) -> None:
    assert read(write(tmp_path / name, b"\xef\xbb\xbf" + content.encode())) == ([HEAT], [])


def test_columns_can_be_mapped(tmp_path: Path) -> None:
    path = write(tmp_path / "items.csv", "isbn,name,plot,title\n007,Dune,Sand.,x\n")
    items, bad = read(path, Columns(id="isbn", title="name", text="plot"))
    assert (items, bad) == ([SourceItem("007", "Dune", "Sand.", {"title": "x"})], [])


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(
    "columns", [Columns(id="isbn"), Columns(title="isbn"), Columns(text="isbn")]
)
def test_a_mapped_column_that_the_file_lacks_is_refused_with_those_it_has(
    tmp_path: Path, ending: str, columns: Columns
) -> None:
    path = tmp_path / f"items{ending}"
    if ending == ".parquet":
        write_parquet(path, {"id": ["1"], "title": ["a"]})
    else:
        write(path, '{"id": "1", "title": "a"}' if ending == ".jsonl" else "id,title\n1,a\n")
    with pytest.raises(ItemsInvalid, match="no column isbn; it has id, title"):
        read(path, columns)


def test_a_file_may_do_without_the_default_text_column(tmp_path: Path) -> None:
    assert read(write(tmp_path / "i.csv", "id,title\n1,a\n"))[0] == [SourceItem("1", "a", "", {})]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ItemsInvalid, match="two columns have the same name"):
        read(write(tmp_path / "items.csv", "id,title,genres,genres[]\n"))


def test_a_csv_without_a_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ItemsInvalid, match="no column id; it has no columns"):
        read(write(tmp_path / "items.csv", ""))


def test_a_csv_header_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ItemsInvalid, match="header cannot be read: invalid UTF-8"):
        read(write(tmp_path / "items.csv", "id,title\n1,a\n".encode("utf-16")))


def test_nested_attributes_are_merged_and_top_level_columns_win(tmp_path: Path) -> None:
    row = {"id": "1", "title": "a", "year": 1, "attributes": {"year": 2, "id": 3, "cast": ["x"]}}
    items, bad = read(write(tmp_path / "items.jsonl", json.dumps(row)))
    assert (items, bad) == ([SourceItem("1", "a", "", {"year": 1, "cast": ["x"]})], [])


def test_attributes_that_is_not_an_object_is_an_attribute_like_any(tmp_path: Path) -> None:
    items, _ = read(write(tmp_path / "i.jsonl", '{"id": "1", "title": "a", "attributes": ["x"]}'))
    assert items[0].attributes == {"attributes": ["x"]}


def test_null_attributes_and_list_elements_are_dropped(tmp_path: Path) -> None:
    row = '{"id": "1", "title": "a", "year": null, "cast": ["x", null], "seen": false}'
    items, _ = read(write(tmp_path / "items.jsonl", row))
    assert items[0].attributes == {"cast": ["x"], "seen": False}


def test_a_missing_title_is_the_start_of_the_text(tmp_path: Path) -> None:
    items, _ = read(write(tmp_path / "i.jsonl", json.dumps({"id": 1, "text": "ab" * 100})))
    assert items == [SourceItem("1", "ab" * 40, "ab" * 100, {})]


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", '\n{"id": "1", "title": "a"}\r\n  \n[]\n\n')
    items, bad = read(path)
    assert [item.id for item in items] == ["1"]
    assert bad == [BadRow(4, "not a JSON object; write one object on each line")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"title": "a"}', "id is missing"),
        ('{"id": "", "title": "a"}', "id is missing"),
        ('{"id": " ", "title": "a"}', "id is missing"),
        ('{"id": true, "title": "a"}', "id is not a string"),
        ('{"id": 1.5, "title": "a"}', "id is not a string"),
        (json.dumps({"id": "x" * 257, "title": "a"}), "id is longer than 256 characters"),
        ('{"id": "1", "title": true}', "title is not a string"),
        ('{"id": "1", "title": "a", "text": []}', "text is not a string"),
        ('{"id": "1", "title": "", "text": null}', "title and text are both missing"),
        ('{"id": "1", "title": "a", "x": {"y": 1}}', "attribute x is an object; flatten it"),
        ('{"id": "1", "title": "a", "x": [{}]}', "attribute x is an object; flatten it"),
        ('{"id": "1", "title": "a", "x": [[1]]}', "attribute x holds a list"),
        ('{"id": "1", "title": "a", "x": NaN}', "invalid JSON: expected value at column"),
        ('{"id": "1", "title": "a", "x": -Infinity}', "invalid JSON: invalid number at column"),
        ('{"id": "1", "title": "a", "x": 1e999}', "attribute x is not a finite number"),
        ('{"id": "1", "title"', "invalid JSON"),
        (b'{"id": "1", "title": "\xff"}', "invalid UTF-8"),
        ('{"id": "0", "title": "a"}', "duplicate id; line 1 has it first"),
    ],
)
def test_a_bad_json_row_is_reported_and_skipped(
    tmp_path: Path, row: str | bytes, reason: str
) -> None:
    (bad,) = bad_json(tmp_path, row)
    assert bad.line == 2
    assert bad.reason.startswith(reason)


def test_a_numeric_title_is_text(tmp_path: Path) -> None:
    items, bad = read(write(tmp_path / "items.jsonl", '{"id": "1", "title": 1917}\n'))
    assert [item.title for item in items] == ["1917"]
    assert not bad


def test_the_id_of_a_bad_row_is_still_free(tmp_path: Path) -> None:
    content = '{"id": "1", "title": []}\n{"id": "1", "title": "a"}\n'
    items, bad = read(write(tmp_path / "items.jsonl", content))
    assert [item.title for item in items] == ["a"]
    assert [row.line for row in bad] == [1]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("12", 12),
        ("-1.5", -1.5),
        ("1e3", 1000.0),
        ("true", "true"),
        ("nan", "nan"),
        ("Infinity", "Infinity"),
        ("1_000", "1_000"),
        ("a|b", "a|b"),
    ],
)
def test_a_csv_cell_is_a_number_where_it_reads_as_one(
    tmp_path: Path, cell: str, value: object
) -> None:
    (item,), _ = read(write(tmp_path / "items.csv", f"id,title,x\n1,a,{cell}\n"))
    assert item.attributes == {"x": value}
    assert type(item.attributes["x"]) is type(value)


def test_id_title_and_text_of_a_csv_stay_as_written(tmp_path: Path) -> None:
    items, _ = read(write(tmp_path / "items.csv", "id,title,text\n007,1917,1e3\n"))
    assert items == [SourceItem("007", "1917", "1e3", {})]


def test_empty_csv_cells_are_absent(tmp_path: Path) -> None:
    items, _ = read(write(tmp_path / "items.csv", "id,title,year,genres[]\n1,a,,\n"))
    assert items[0].attributes == {}


def test_bad_csv_rows_carry_the_line_where_they_start(tmp_path: Path) -> None:
    rows = [
        b"id,title,x",
        b'1,"two',
        b'lines",1',
        b"",
        b"2,b",
        b"3,c,1,2",
        b'4,"d"d,1',
        b"5,\xff,1",
    ]
    items, bad = read(write(tmp_path / "items.csv", b"\r\n".join([*rows, b"6,f,1", b""])))
    assert [item.title for item in items] == ["two\r\nlines", "f"]
    assert bad == [
        BadRow(5, "2 fields where the header has 3"),
        BadRow(6, "4 fields where the header has 3"),
        BadRow(7, "',' expected after '\"'; skipped to the end of line 7"),
        BadRow(8, "invalid UTF-8"),
    ]


def test_a_csv_quote_left_open_names_the_lines_it_swallowed(tmp_path: Path) -> None:
    items, bad = read(write(tmp_path / "items.csv", 'id,title\n1,a\n2,"b\n3,c\n4,d\n'))
    assert [item.id for item in items] == ["1"]
    assert bad == [BadRow(3, "unexpected end of data; skipped to the end of line 5")]


def test_a_csv_field_over_the_limit_is_a_bad_row(tmp_path: Path) -> None:
    long = "x" * (csv.field_size_limit() + 1)
    items, bad = read(write(tmp_path / "items.csv", f"id,title\n1,{long}\n2,b\n"))
    assert [item.id for item in items] == ["2"]
    assert "larger than field limit" in bad[0].reason


def test_bad_parquet_rows_carry_their_row_number(tmp_path: Path) -> None:
    names = pa.array([b"a", b"b", b"\xff", b"d", b"e"]).cast(pa.binary()).view(pa.string())
    days = [None, date(2020, 1, 1), None, None, None]
    scores = [1.0, None, None, float("nan"), None]
    columns = {"id": [1, 2, 3, 4, 1], "title": names, "day": days, "score": scores}
    items, bad = read(write_parquet(tmp_path / "items.parquet", columns))
    assert items == [SourceItem("1", "a", "", {"score": 1.0})]
    assert [(row.line, row.reason.split(";")[0]) for row in bad] == [
        (2, "attribute day holds a date"),
        (3, "invalid UTF-8"),
        (4, "attribute score is not a finite number"),
        (5, "duplicate id"),
    ]


def test_a_parquet_struct_of_attributes_is_merged(tmp_path: Path) -> None:
    columns = {"id": ["1"], "title": ["a"], "attributes": [{"year": 1999, "cast": None}]}
    items, _ = read(write_parquet(tmp_path / "items.parquet", columns))
    assert items[0].attributes == {"year": 1999}


def test_a_large_parquet_row_group_is_read_in_pieces(tmp_path: Path) -> None:
    texts = [f"{number:02000}" for number in range(8_000)]  # 16 MB
    path = tmp_path / "items.parquet"
    table = pa.table({"id": range(len(texts)), "text": texts})
    parquet.write_table(table, path, compression="none", use_dictionary=False)
    del table
    before = pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() for _ in read_items(path, Columns(), print)) - before
    assert peak < 8_000_000


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ItemsInvalid, match="cannot be read as Parquet"):
        read(write(tmp_path / "items.parquet", b"PAR1 not really"))


def test_parquet_without_pyarrow_names_the_command_that_adds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="pip install"):
        read(write(tmp_path / "items.parquet", b""))


def test_a_truncated_gzip_is_refused_after_the_items_before_the_cut(tmp_path: Path) -> None:
    lines = "".join(f'{{"id": "{number}", "title": "a"}}\n' for number in range(10_000))
    path = write(tmp_path / "items.jsonl.gz", lines)
    path.write_bytes(path.read_bytes()[:-2_000])
    items = read_items(path, Columns(), print)
    assert next(items).id == "0"
    with pytest.raises(ItemsInvalid, match="cannot be read to its end"):
        list(items)


@pytest.mark.parametrize(
    "content", [b"not gzip", gzip.compress(b"x" * 99, mtime=0)[:12] + b"\xff" * 20]
)
def test_a_damaged_gzip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "items.csv.gz"
    path.write_bytes(content)
    with pytest.raises(ItemsInvalid, match="cannot be read to its end"):
        read(path)


def test_an_endless_line_is_refused_before_it_fills_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_CHARS", 30)
    fits = '{"id": "1", "title": "abcdef"}'
    assert len(read(write(tmp_path / "items.jsonl", fits))[0]) == 1
    with pytest.raises(ItemsInvalid, match="longer than 30 characters"):
        read(write(tmp_path / "items.jsonl", fits + " "))
