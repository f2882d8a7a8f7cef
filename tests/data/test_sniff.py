"""Files that are not what their name says, in encodings and with line ends of all kinds."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from thresher.data import Row, iter_rows
from thresher.errors import UserError

TABLE = pa.table({"x": ["1", "3"], "y": ["é", "4"]})
TEXTS = {
    "a.tsv": "x\ty\n1\té\n3\t4\n",
    "a.csv": "x,y\n1,é\n3,4\n",
    "a.jsonl": '{"x": "1", "y": "é"}\n{"x": "3", "y": "4"}\n',
}


def read(path: Path) -> list[tuple]:
    return [(row.values["x"], row.values["y"]) for row in iter_rows(path, ["x", "y"])]


def parquet() -> bytes:
    pq.write_table(TABLE, file := io.BytesIO())
    return file.getvalue()


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "be+mark", "utf-32-be+mark"],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [False, True])
def test_encodings_and_line_ends(tmp_path: Path, name: str, encoding: str, end: str, packed: bool) -> None:
    text, codec = TEXTS[name].replace("\n", end), encoding
    if "+mark" in encoding:
        text, codec = "\ufeff" + text, {"be+mark": "utf-16-be"}.get(encoding, "utf-32-be")
    content = text.encode(codec)
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    assert read(tmp_path / name) == [("1", "é"), ("3", "4")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16"])
@pytest.mark.parametrize(
    "words", ["Ein schöner Film", "хороший фильм", "一部好电影,上一次看的", "\u0100\u4e0a😀"]
)
def test_utf16_of_many_scripts(tmp_path: Path, words: str, encoding: str) -> None:
    rows = "".join(f"{words}{i}\t一\n" for i in range(50))
    (tmp_path / "a.tsv").write_bytes(f"{words}\tlabel\n{rows}".encode(encoding))
    found = list(iter_rows(tmp_path / "a.tsv", [words, "label"]))
    assert [row.wanted for row in found] == [(f"{words}{i}", "一") for i in range(50)]


@pytest.mark.parametrize("name", ["a.tsv.gz", "a.csv.gz", "a.jsonl.gz"])
def test_not_gzipped_after_all(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TEXTS[name.removesuffix(".gz")])
    assert read(tmp_path / name) == [("1", "é"), ("3", "4")]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.csv.gz", "a.ndjson"])
def test_parquet_under_another_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(parquet())
    assert read(tmp_path / name) == [("1", "é"), ("3", "4")]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.tsv"])
def test_json_lines_under_another_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TEXTS["a.jsonl"])
    assert read(tmp_path / name) == [("1", "é"), ("3", "4")]


def test_carriage_returns(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"x\ty\n1\r\t2\n3\t\r4\r\n")  # content, where line feeds end the lines
    assert read(path) == [("1\r", "2"), ("3", "\r4")]
    path.write_bytes(b"x\ty\r1\t2\r3\r")
    with pytest.raises(UserError, match=r"a\.tsv:3: expected 2 fields"):
        list(iter_rows(path))
    path = tmp_path / "a.csv"
    path.write_bytes(b'x,y\r1,"a\nb"\r3,4\r')  # as Excel for Mac writes a line end inside a cell
    assert list(iter_rows(path)) == [Row(2, {"x": "1", "y": "a\nb"}), Row(4, {"x": "3", "y": "4"})]
    path.write_bytes(b"x,y\n1,2\n3,a\rb\n")
    with pytest.raises(UserError, match=r"a\.csv:3: a carriage return stands inside a field without quotes"):
        list(iter_rows(path))


def _zip(*names: str) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        for name in names:
            archive.writestr(name, "x" * 99)
    return file.getvalue()


def _tar() -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.csv"), io.BytesIO())
    return file.getvalue()


def _sqlite() -> bytes:
    database = sqlite3.connect(":memory:")
    database.execute("create table a (x)")
    return database.serialize()


def _saved(write: Callable[[io.BytesIO], object]) -> bytes:
    write(file := io.BytesIO())
    return file.getvalue()


def _ipc() -> bytes:
    with pa.ipc.new_stream(file := io.BytesIO(), TABLE.schema) as writer:
        writer.write_table(TABLE)
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_zip("a.csv"), "is a zip archive; unpack it"),
        (_zip(), "is a zip archive"),
        (_zip("[Content_Types].xml", "xl/workbook.xml"), "is an Excel workbook; open it and save it as CSV"),
        (_zip("[Content_Types].xml", "word/document.xml"), "is a Word document"),
        (_zip("x.npy"), r"is a NumPy archive \(.npz\)"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), r"is an old Excel workbook \(.xls\)"),
        (bz2.compress(b"x,y\n"), "is packed by bzip2; unpack it"),
        (bz2.compress(b""), "is packed by bzip2"),
        (lzma.compress(b"x,y\n"), "is packed by xz"),
        (pa.compress(b"x,y\n" * 99, codec="zstd", asbytes=True), "is packed by zstd"),
        (pa.compress(b"x,y\n" * 99, codec="lz4", asbytes=True), "is packed by lz4"),
        (gzip.compress(gzip.compress(b"x,y\n")), "is gzipped twice"),
        (gzip.compress(_tar()), "is a tar archive"),
        (_tar(), "is a tar archive"),
        (gzip.compress(parquet()), "is a gzipped Parquet file; unpack it"),
        (b"%PDF-1.7\n%\xe2\xe3", "is a PDF document"),
        (b"\n<!DOCTYPE html>\n<html>", "is an HTML or XML page; download the file itself"),
        ("\ufeff<HTML lang=en>".encode(), "is an HTML or XML page"),
        ("<?xml version='1.0'?>".encode("utf-16"), "is an HTML or XML page"),
        (_sqlite(), "is an SQLite database"),
        (pickle.dumps({"x": [1]}), "is a Python pickle"),
        (pickle.dumps(["x"], protocol=2), "is a Python pickle"),
        (_saved(lambda file: np.save(file, np.arange(9))), "is a NumPy array"),
        (_saved(lambda file: feather.write_feather(TABLE, file)), "is an Arrow or Feather file"),
        (b"FEA1\0\0\0\0" + bytes(99), "is an Arrow or Feather file"),
        (_ipc(), "is an Arrow or Feather file"),
        ("text,label\n映画,pos\n".encode("iso2022_jp"), "is in ISO-2022-JP or its kin; save it as UTF-8"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "is a Git LFS pointer.* git lfs pull",
        ),
        (json.dumps([{"x": 1, "y": 2}]).encode(), r"is one JSON array.* jq -c '\.\[\]' a\."),
        (json.dumps([{"x": 1}] * 9, indent=2).encode("utf-16"), "is one JSON array"),
    ],
    ids=lambda value: value if isinstance(value, str) else "_",  # archives hold the time: no two are alike
)
def test_what_is_no_table(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: {message}"):
        iter_rows(tmp_path / name, ["x"])


@pytest.mark.parametrize("content", [b"x\ty\n1\t2\n", b"x,y\n1,2\n", "éa\tb\n".encode("utf-16")])
def test_text_is_no_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: is text, not Parquet; name it \.tsv, \.csv or \.jsonl"):
        iter_rows(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x\ty\n1\t2\na\0\tb\n", r":3: holds a NUL byte.*remove it"),
        (b"x\ty\n1\t2\n\xe9\tb\n", r":3: byte 0xe9 is not UTF-8; save the file as UTF-8 .*cp1252"),
        (b"x\ty\n1\t2\n\xed\xa0\x80\tb\n", r":3: byte 0xed is not UTF-8"),
        ("x\ty\n1\t2\n\ud800\tb\n".encode("utf-16", "surrogatepass"), r":3: holds half of a surrogate pair"),
        ("x\ty\n1\t2\n3\t4".encode("utf-16")[:-1], r": cannot be read .*text is damaged after line"),
        ("x\ty\n1\t2\n".encode("utf-32-le"), r":1: holds a NUL byte.*UTF-32"),
    ],
)
def test_odd_bytes_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tsv" + message):
        list(iter_rows(tmp_path / "a.tsv"))


def test_an_escaped_nul_is_content(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": "a\\u0000b", "y": 1}\n')
    assert read(tmp_path / "a.jsonl") == [("a\0b", 1)]


@pytest.mark.parametrize(
    "header", ["PK", "PAR1", "ORC", "BZh", "FEA1", "x%PDF-", "<b>", "version", "7z", "%"]
)
def test_names_that_look_like_marks(tmp_path: Path, header: str) -> None:
    (tmp_path / "a.tsv").write_text(f"{header}\ty\n1\t2\n")
    assert next(iter_rows(tmp_path / "a.tsv", [header])).wanted == ("1",)


def test_lines_longer_than_the_head(tmp_path: Path) -> None:
    long = "wörd " * 50_000
    for name, content in (
        ("a.tsv", f"x\ty\r{long}\tb\r"),
        ("a.csv", f'x;y\n"{long}";b\n'),
        ("a.csv", f"{long},y\n" + f"{long},b\n" * 3),
        ("a.jsonl", json.dumps({"x": long, "y": "b"})),
    ):
        (tmp_path / name).write_text(content, newline="")
        rows = [row.values for row in iter_rows(tmp_path / name, ["y"])]
        assert {len(row) for row in rows} == {2}
        assert list(rows[-1].values()) == [long, "b"]
