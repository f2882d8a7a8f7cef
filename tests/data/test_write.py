"""Writing rows: what is written can be read again, and what cannot be written is refused."""

from __future__ import annotations

import gc
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.data import RowWriter, iter_rows
from thresher.data import write as writing
from thresher.errors import UserError

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
few = settings(max_examples=25, deadline=None)


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with RowWriter(path) as writer:
        for row in rows:
            writer.write(row)


def round_trip(suffix: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"new/rows{suffix}"
        write(path, rows)
        return [row.values for row in iter_rows(path, list(rows[0]))]


@few
@given(st.lists(st.fixed_dictionaries({"a": texts, "b": texts}), min_size=1), st.sampled_from(["", ".gz"]))
def test_round_trip_text(rows: list[dict[str, str]], packed: str) -> None:
    rows = [{k: v.replace("\0", "\\x00") for k, v in row.items()} for row in rows]  # no text file can hold it
    assert round_trip(".csv" + packed, rows) == rows
    squeezed = [{k: re.sub(r"[\t\r\n]+", " ", v) for k, v in row.items()} for row in rows]
    assert round_trip(".tsv" + packed, rows) == squeezed


@few
@given(st.lists(st.fixed_dictionaries({"a": texts}), min_size=1))
def test_round_trip_one_column(rows: list[dict[str, str]]) -> None:
    rows = [{"a": row["a"].replace("\0", "\\x00")} for row in rows]
    assert round_trip(".csv", rows) == rows
    assert round_trip(".tsv", rows) == [{"a": re.sub(r"[\t\r\n]+", " ", row["a"])} for row in rows]


@few
@given(st.lists(st.fixed_dictionaries({"a": json_values, "b": json_values}), min_size=1))
def test_round_trip_jsonl(rows: list[dict[str, Any]]) -> None:
    assert round_trip(".jsonl", rows) == round_trip(".ndjson.gz", rows) == rows


@few
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "a": texts,
                "b": st.integers(-(2**63), 2**63 - 1),
                "c": st.floats(allow_nan=False),
                "d": st.lists(texts, min_size=1),
            }
        ),
        min_size=1,
    )
)
def test_round_trip_parquet(rows: list[dict[str, Any]]) -> None:
    assert round_trip(".parquet", rows) == rows


def test_writer_cells(tmp_path: Path) -> None:
    row = {
        "a": None,
        "b": ["é", 1],
        "c": {"k": np.float32(0.5)},
        "d": "x\t\r\ny",
        "e": np.int64(3),
        "f": True,
    }
    with RowWriter(tmp_path / "a.tsv") as writer:
        writer.write(row)
        writer.write({"f": "last"})
    content = (tmp_path / "a.tsv").read_text(encoding="utf-8")
    assert content == 'a\tb\tc\td\te\tf\n\t["é", 1]\t{"k": 0.5}\tx y\t3\tTrue\n\t\t\t\t\tlast\n'
    with RowWriter(tmp_path / "a.jsonl") as writer:
        writer.write(row | {"g": np.arange(2)})
        writer.write({"h": "\ud800"})
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {**row, "b": ["é", 1], "c": {"k": 0.5}, "g": [0, 1]}
    assert json.loads(lines[1]) == {"h": "\ud800"}


@pytest.mark.parametrize("suffix", [".tsv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet"])
def test_writer_keeps_rows_before_an_error_and_none_before_an_interrupt(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"

    def rows(error: BaseException) -> Iterator[dict[str, str]]:
        yield from ({"n": str(i)} for i in range(5000))
        raise error

    with pytest.raises(UserError):
        write(path, rows(UserError("a fault")))
    assert [row.values["n"] for row in iter_rows(path)] == [str(i) for i in range(5000)]
    before = path.read_bytes()
    for other in (path, tmp_path / f"b{suffix}"):
        with pytest.raises(KeyboardInterrupt):
            write(other, rows(KeyboardInterrupt()))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".tsv", ".csv.gz", ".jsonl", ".parquet"])
def test_writer_shows_nothing_before_the_end(tmp_path: Path, suffix: str) -> None:
    path, link = tmp_path / f"a{suffix}", tmp_path / f"link{suffix}"
    path.write_text("precious")
    link.symlink_to(path)
    with RowWriter(link) as writer:
        for number in range(5000):
            writer.write({"n": str(number)})
        assert path.read_text() == "precious"
    assert len(list(iter_rows(path))) == 5000
    assert link.is_symlink()
    first = path.read_bytes()
    write(path, ({"n": str(number)} for number in range(5000)))
    assert path.read_bytes() == first


def test_who_may_read_a_file_may_read_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("secret")
    path.chmod(0o600)
    with RowWriter(path) as writer:
        writer.write({"n": "1"})
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    assert [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()] == [0o600]


@pytest.mark.parametrize("suffix", [".tsv", ".csv.gz", ".jsonl"])
def test_writer_into_a_pipe(tmp_path: Path, suffix: str) -> None:
    pipe, copy = tmp_path / f"pipe{suffix}", tmp_path / f"copy{suffix}"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: copy.write_bytes(pipe.read_bytes()))
    reader.start()
    write(pipe, [{"n": "1"}, {"n": "2"}])
    reader.join()
    assert [row.values["n"] for row in iter_rows(copy)] == ["1", "2"]
    assert pipe.is_fifo()
    closing = threading.Thread(target=lambda: os.close(os.open(pipe, os.O_RDONLY)))
    closing.start()
    with pytest.raises(BrokenPipeError):
        write(pipe, ({"n": f"{number * 7919}"} for number in range(100_000)))
    closing.join()


def test_writer_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"out\.txt: unknown file type"):
        RowWriter(tmp_path / "out.txt")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written .*choose another path"):
        RowWriter(tmp_path / "file/out.tsv").__enter__()
    for suffix in (".tsv", ".csv", ".parquet"):
        path = tmp_path / f"a{suffix}"
        with pytest.raises(UserError, match=r"the first row has no column 'y'; write \.jsonl"):
            write(path, [{"x": "1"}, {"x": "2", "y": "3"}])
        assert [row.values for row in iter_rows(path)] == [{"x": "1"}]


def test_writer_parquet_types(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    first = [{"i": i, "null": None, "mixed": "a" if i else 1, "dict": {"i": i}} for i in range(4096)]
    with pytest.raises(UserError, match=r"1\.5 does not fit column 'i' of type int64; write \.jsonl"):
        write(path, [*first, {"i": 4096, "null": 0.5, "mixed": [1]}, {"i": 1.5}])
    rows = [row.values for row in iter_rows(path)]
    assert rows[0] == {"i": 0, "null": None, "mixed": "1", "dict": '{"i": 0}'}
    assert rows[4096:] == [{"i": 4096, "null": "0.5", "mixed": "[1]", "dict": None}]
    assert pq.ParquetFile(path).num_row_groups == 2


@pytest.mark.parametrize("suffix", [".tsv", ".parquet"])
def test_writer_without_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, [])
    with pytest.raises(UserError, match="no rows"):
        iter_rows(path)


@pytest.mark.parametrize("first", [[], [[]], [None], [{}], {}, [{"a": []}], [{"a": None}], [[], None]])
def test_writer_parquet_of_what_shows_no_type(tmp_path: Path, first: Any) -> None:
    path = tmp_path / "a.parquet"
    write(path, [{"x": first}] * 4096 + [{"x": None}, {"x": first}])
    found = [row.values["x"] for row in iter_rows(path)]
    assert len(found) == 4098
    assert found[4096] is None
    shown = found[0] if not isinstance(found[0], str) else json.loads(found[0])
    assert json.dumps(shown) in (json.dumps(first), json.dumps([json.dumps(item) for item in first]))


def test_writer_parquet_of_lists_that_begin_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, [{"x": []}] * 4096 + [{"x": ["bug"]}, {"x": []}, {"x": ["a", "b"]}])
    assert [row.values["x"] for row in iter_rows(path)][4096:] == [["bug"], [], ["a", "b"]]
    with pytest.raises(UserError, match=r"does not fit column 'x' of type list<.*string>; write \.jsonl"):
        write(path, [{"x": []}] * 4096 + [{"x": [1]}])


@pytest.mark.parametrize("suffix", [".tsv", ".csv.gz", ".jsonl", ".parquet"])
def test_writer_of_dicts(tmp_path: Path, suffix: str) -> None:
    cells = [{"bug": 0.25, "ü": 1e-9}, {"bug": np.float32(0.5)}, {}]
    write(tmp_path / f"a{suffix}", [{"x": 1, "score": cell} for cell in cells])
    found = [row.values["score"] for row in iter_rows(tmp_path / f"a{suffix}")]
    expected = [{"bug": 0.25, "ü": 1e-9}, {"bug": 0.5}, {}]
    assert (found if suffix == ".jsonl" else list(map(json.loads, found))) == expected


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize("value", ["\ud800", "a\udc00b", ["\ud800"], {"\ud800": ["\udfff"]}, "a\0b"])
def test_writer_of_what_is_no_text(tmp_path: Path, suffix: str, value: Any) -> None:
    write(tmp_path / f"a{suffix}", [{"x": 1, "y": "first"}] * 4096 + [{"x": 1, "y": value}])
    write(tmp_path / f"b{suffix}", [{"x": 1, "y": value}])
    for name in ("a", "b"):
        *_, row = iter_rows(tmp_path / f"{name}{suffix}", ["x"])
        assert set(row.values) == {"x", "y"}


def test_writer_parquet_groups_of_long_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_CHARACTERS", 1000)
    write(tmp_path / "a.parquet", [{"x": "a" * 400, "y": 1}] * 7)
    groups = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert [groups.row_group(at).num_rows for at in range(groups.num_row_groups)] == [3, 3, 1]


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")


@FULL
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl", ".tsv.gz", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize("rows", [0, 1, 30_000])
def test_writer_on_a_full_disk(tmp_path: Path, suffix: str, rows: int) -> None:
    path = tmp_path / f"a{suffix}"
    path.symlink_to("/dev/full")
    many = ({"x": f"{i * 7919 % 100_003} {i}"} for i in range(rows))
    if rows or suffix not in (".tsv", ".csv", ".jsonl"):
        with pytest.raises(
            UserError, match=rf"a{suffix}: cannot be written \(No space left on device\); make"
        ):
            write(path, many)
    gc.collect()


@FULL
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".tsv", ".csv.gz", ".jsonl", ".parquet"])
@pytest.mark.parametrize("error", [UserError("mine"), KeyboardInterrupt("mine")])
def test_writer_on_a_full_disk_lets_other_exceptions_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, error: BaseException
) -> None:
    path = tmp_path / f"a{suffix}"
    path.symlink_to("/dev/full")

    def rows() -> Iterator[dict[str, str]]:
        yield {"x": "1"}
        raise error

    with pytest.raises(type(error), match="mine"):
        write(path, rows())
    assert "No space left on device" in caplog.text
    gc.collect()


@pytest.mark.parametrize("suffix", [".tsv", ".csv.gz", ".jsonl", ".parquet"])
def test_writer_at_a_limit_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource")
    path, before = tmp_path / f"a{suffix}", resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_text("precious")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(UserError, match=rf"a{suffix}: cannot be written \(File too large\)"):
            write(path, ({"x": f"{i * 7919 % 100_003} {i}"} for i in range(50_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]
