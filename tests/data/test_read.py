"""Reading rows: every format, streaming, and an error for each broken input."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.conftest import Make
from thresher.data import Row, iter_rows
from thresher.errors import UserError


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.tsv", '\ufeffx\ty\r\n1\t"2\r\n3\t4\r\n\r\n\n', [(2, "1", '"2'), (3, "3", "4")]),
        ("a.tsv", "x\ty\n1\t2", [(2, "1", "2")]),
        ("a.tsv", "x\ty\n\t\n", [(2, "", "")]),
        ("a.TSV.GZ", "x\ty\n1\t2", [(2, "1", "2")]),
        ("a.csv", '\ufeffx,y\r\n1,"2\r\n2"\r\n\r\n3,4\r\n\n', [(2, "1", "2\r\n2"), (5, "3", "4")]),
        ("a.csv", "x,y\n1," + "w" * 200_000, [(2, "1", "w" * 200_000)]),
        ("a.jsonl", '\ufeff\n{"x": 1, "y": null}\r\n \n{"y": [2], "x": 3}', [(2, 1, None), (4, 3, [2])]),
        ("a.ndjson", '{"x": "\\ud83d\\ude00", "y": "\u2028"}', [(1, "\U0001f600", "\u2028")]),
    ],
)
def test_formats(make: Make, name: str, content: str, expected: list[tuple]) -> None:
    rows = iter_rows(make(name, content), ["x", "y"])
    assert list(rows) == [Row(line, {"x": x, "y": y}) for line, x, y in expected]


def test_blank_lines_of_one_column_are_texts(make: Make) -> None:
    rows = list(iter_rows(make("a.tsv", "x\na\n\nb\n\n")))
    assert [(row.line, row.values["x"]) for row in rows] == [(2, "a"), (3, ""), (4, "b"), (5, "")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x\n1\n", r"a\.txt: unknown file type; .*\.tsv, \.csv, \.jsonl .*\.parquet"),
        ("a.parquet.gz", "", "unknown file type"),
        ("a.tsv", "", "no rows"),
        ("a.tsv.gz", "", "no rows"),
        ("a.tsv", "x\ty\n", "no rows"),
        ("a.csv", "x,y\n\n", "no rows"),
        ("a.jsonl", "\n\n", "no rows"),
        ("a.tsv", "x\tz\n1\t2\n", r"a\.tsv: no column 'y'; choose from: x, z"),
        ("a.csv", "x,z\n1,2\n", r"a\.csv: no column 'y'; choose from: x, z"),
        ("a.jsonl", '{"x": 1, "z": 2}\n', r"a\.jsonl:1: no column 'y'; choose from: x, z"),
        ("a.tsv", "x\tx\n1\t2\n", "two columns are named 'x'; rename"),
        ("a.csv", "x,x\n1,2\n", "two columns are named 'x'; rename"),
        ("a.tsv", "x\ty\n1\t2\t3\n", r"a\.tsv:2: expected 2 fields as in the header, found 3; .*tab"),
        ("a.csv", "x,y\n1\n", r"a\.csv:2: expected 2 fields as in the header, found 1; .*quotes"),
        ("a.csv", 'x,y\n1,"2"3\n', r"a\.csv:2: broken CSV .*check the quotes"),
        ("a.jsonl", "{x}\n", r"a\.jsonl:1: invalid JSON \(.*\); write one object a line"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl:1: invalid JSON"),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1: expected a JSON object, found a list"),
        ("a.jsonl", '{"x": "\\uD83D", "y": 1}\n', r"a\.jsonl:1: .*half of a surrogate pair"),
        ("a.tsv", b"x\ty\n1\t\xff\n", r"a\.tsv:2: byte 0xff is not UTF-8; save"),
        ("a.parquet", b"PAR1\x15\0 no such thing", r"a\.parquet: cannot be read .*not a whole Parquet file"),
        ("a.parquet", b"", "not a whole Parquet file"),
    ],
)
def test_refused_at_the_call(make: Make, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        iter_rows(make(name, content), ["x", "y"])


@pytest.mark.parametrize(
    ("name", "head", "broken", "message"),
    [
        ("a.tsv", "x\ty\n1\t2\n", b"3\n", r":3: expected 2 fields .*found 1"),
        ("a.tsv", "x\ty\n1\t2\n", b"\n\n3\t4\n", r":3: expected 2 fields, found a blank line; remove"),
        ("a.csv", "x,y\n1,2\n", b'\n3,"4\n5\n', r":4: broken CSV"),
        ("a.jsonl", '{"x": 1, "y": 2}\n', b'\n{"x": 3}\n', r":3: no column 'y'; choose from: x"),
        ("a.jsonl", '{"x": 1, "y": 2}\n', b"7\n", r":2: expected a JSON object, found a int"),
        ("a.jsonl", '{"x": 1, "y": 2}\n', b'{"x": "\xe9"}\n', r":2: byte 0xe9 is not UTF-8"),
    ],
)
def test_refused_while_iterating(make: Make, name: str, head: str, broken: bytes, message: str) -> None:
    rows = iter_rows(make(name, head.encode() + broken), ["x", "y"])
    assert list(map(str, next(rows).values.values())) == ["1", "2"]
    with pytest.raises(UserError, match=re.escape(name) + message):
        list(rows)


def test_paths_refused(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such file; check the path"):
        iter_rows(tmp_path / "none.tsv")
    with pytest.raises(UserError, match="is a folder; give a file"):
        iter_rows(tmp_path)

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = make("a.tsv", "x\n1\n")
    monkeypatch.setattr("thresher.data.formats.open", denied, raising=False)
    with pytest.raises(UserError, match="Permission denied"):
        iter_rows(path)


@pytest.mark.parametrize("damage", ["cut", "garbled", "cut at once"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    packed = gzip.compress("".join(f"{i}\n" for i in range(20_000)).encode())
    half = len(packed) // 2
    content = {
        "cut": packed[:half],
        "cut at once": packed[:12],
        "garbled": packed[:half] + b"\xff" * 99 + packed[half:],
    }
    (tmp_path / "a.tsv.gz").write_bytes(content[damage])
    with pytest.raises(UserError, match=r"a\.tsv\.gz: cannot be read .*gzip data are damaged after line \d+"):
        list(iter_rows(tmp_path / "a.tsv.gz"))


def test_streams(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make("big.tsv", "x\ty\n" + "a\tb\n" * 50_000 + "broken\n")
    read = 0
    rows = iter_rows(path)
    for read, _ in enumerate(rows, 1):
        if read == 50_000:
            break
    with pytest.raises(UserError, match=r"big\.tsv:50002:"):
        next(rows)

    def lines(*_: object) -> Iterator[str]:
        yield from ("x\n", "first\n")
        pytest.fail("read more than the first row")

    monkeypatch.setattr("thresher.data.delimited.lines", lines)
    assert next(iter_rows(path)).values == {"x": "first"}


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": list(range(3000)), "y": [None] * 3000}), path, row_group_size=700)
    rows = list(iter_rows(path, ["y"]))
    assert [row.line for row in rows] == list(range(1, 3001))
    assert rows[-1].values == {"x": 2999, "y": None}
    with pytest.raises(UserError, match=r"a\.parquet: no column 'z'; choose from: x, y"):
        iter_rows(path, ["z"])
    pq.write_table(pa.table({"x": pa.array([], pa.int64())}), path)
    with pytest.raises(UserError, match="no rows"):
        iter_rows(path)


def test_parquet_damaged_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [str(i) for i in range(5000)]}), path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 2000 + content[2004:])
    with pytest.raises(UserError, match="not a whole Parquet file"):
        list(iter_rows(path))
