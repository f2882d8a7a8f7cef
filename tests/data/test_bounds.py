"""Rows longer than memory is kept free for: refused by their line, before they are held."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.conftest import Make
from thresher.data import iter_rows, parquet
from thresher.data.lines import LONGEST
from thresher.errors import UserError

SHORT = 5000  # characters, for `LONGEST` in these tests


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("lines", "delimited", "parquet"):
        monkeypatch.setattr(f"thresher.data.{module}.LONGEST", SHORT)


def peak(run: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("name", "head", "long", "line"),
    [
        ("a.tsv", "x\ty\n1\t2\n", "w" * SHORT + "\tb\n", 3),
        ("a.tsv", "", "w" * SHORT + "\ty\n1\t2\n", 1),
        ("a.tsv", "x\ty\r1\t2\r", "w" * SHORT + "\tb\r", 3),
        ("a.csv", "x,y\n1,2\n", "w" * SHORT + ",b\n", 3),
        ("a.csv", 'x,y\n1,"2\n3"\n', '"' + "word\n" * 1001 + '",b\n', 4),
        ("a.csv", "x,y\n1,2\n", '"a\n' + 'w","\n' * 2000 + '"\n', 3),  # many fields, each short
        ("a.csv", "sep=,\nx,y\n1,2\n", '"' + "word\n" * 1001 + '",b\n', 4),
        ("a.jsonl", '{"x": 1, "y": 2}\n', json.dumps({"x": "w" * SHORT, "y": 2}) + "\n", 2),
        ("a.jsonl.gz", '{"x": 1, "y": 2}\n', json.dumps({"x": "w" * SHORT, "y": 2}) + "\n", 2),
        ("a.csv.gz", "x,y\r\n1,2\r\n", "é" * SHORT + ",b\r\n", 3),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_row_too_long(tmp_path: Path, name: str, head: str, long: str, line: int, encoding: str) -> None:
    content = (head + long + head[head.find("\n") + 1 :]).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(UserError, match=rf"{name}:{line}: the row is longer than 5,000 characters; check"):
        list(iter_rows(tmp_path / name))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "x\ty\n" + ("w" * (SHORT - 3) + "\tb\n") * 3),
        ("a.csv", "x,y\n" + ('"' + "w\n" * (SHORT // 2 - 3) + '",b\n') * 3),
        ("a.csv", "x,y\n" + '"a\nb",c\n' * SHORT),
    ],
)
def test_rows_as_long_as_may_be(make: Make, name: str, content: str) -> None:
    assert len(list(iter_rows(make(name, content)))) >= 3


@pytest.mark.parametrize(
    ("name", "start"), [("a.jsonl.gz", b'{"x": "'), ("a.tsv.gz", b"x\n"), ("a.csv.gz", b'x,y\n"a\n')]
)
def test_a_line_that_gzip_packed(tmp_path: Path, name: str, start: bytes) -> None:
    packed = gzip.compress(b"a" * (1 << 22)) * 40  # members are read as one
    (tmp_path / name).write_bytes(gzip.compress(start) + packed)

    def read() -> None:
        with pytest.raises(UserError, match=rf"{name}:\d: the row is longer than 16,777,216 characters"):
            list(iter_rows(tmp_path / name))

    assert peak(read) < 4 * LONGEST


@pytest.mark.parametrize(("name", "mark"), [("a.tsv", "\t"), ("a.csv", ",")])
def test_a_header_of_too_many_columns(make: Make, name: str, mark: str) -> None:
    path = make(name, "x" + mark * 1_000_000 + "\n" + "1" + mark * 1_000_000 + "\n")
    with pytest.raises(UserError, match=rf"{name}: the header has 1,000,001 columns"):
        iter_rows(path, ["x"])


def test_few_bytes_of_parquet_that_stand_for_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text 300 times is once in the file, and must not be 300 times in memory."""
    monkeypatch.setattr(parquet, "_WEIGHT", 1 << 20)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": ["good film " * 18_000] * 300}), path, compression="zstd")
    assert path.stat().st_size < 1000
    before, held, lengths = pa.total_allocated_bytes(), 0, []
    for row in iter_rows(path):
        held = max(held, pa.total_allocated_bytes() - before)
        lengths.append(len(row.values["x"]))
    assert lengths == [180_000] * 300
    assert held < 4 << 20


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("dictionary", [True, False])
def test_a_row_of_parquet_too_long(tmp_path: Path, dictionary: bool) -> None:
    path = tmp_path / "a.parquet"
    for long in ("w" * (SHORT + 1), ["w" * 99] * 99):
        rows = [long[:0], long[:1], long, long[:1]]
        pq.write_table(pa.table({"x": rows, "y": range(4)}), path, use_dictionary=dictionary)
        rows = iter_rows(path)
        next(rows)
        with pytest.raises(UserError, match=r"a\.parquet:3: the row is longer than"):
            list(rows)
    pq.write_table(pa.table({"x": pa.array(["w" * 99] * 99).dictionary_encode()}), path)
    assert len(list(iter_rows(path))) == 99


@pytest.mark.parametrize(
    ("values", "dictionary"), [(["a" * 1000] * 2000, False), ([[1] * (1 << 17)], True)], ids=["page", "list"]
)
def test_a_piece_of_parquet_too_large(
    tmp_path: Path, values: list, dictionary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_PAGE", 1 << 20)
    monkeypatch.setattr(parquet, "LONGEST", 1 << 16)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": values}), path, use_dictionary=dictionary, data_page_size=1 << 30)
    with pytest.raises(UserError, match=r"a\.parquet: column 'x' holds more in one piece .*row_group_size"):
        iter_rows(path)


def test_the_size_of_a_page(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    for length in (1, 50, 100_000):
        pq.write_table(pa.table({"x": ["a" * length]}), path, use_dictionary=False, column_encoding="PLAIN")
        column = pq.ParquetFile(path).metadata.row_group(0).column(0)
        assert 0 <= parquet._page_size(path, column.data_page_offset) - (length + 4) < 16
