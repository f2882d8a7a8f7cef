"""Which column a name means, and columns that nobody asked for in JSON Lines and Parquet."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.conftest import Make
from thresher.data import RowWriter, columns_of, iter_rows, load_examples, resolve, resolve_columns
from thresher.errors import UserError


@pytest.mark.parametrize(
    ("names", "present", "expected"),
    [
        (["a"], ["b", "a"], ["a"]),
        (["b", "a"], ["a", "b"], ["b", "a"]),
        (["a", "a"], ["a"], ["a", "a"]),
        ([" a "], ["a"], ["a"]),
        (["a"], [" a "], [" a "]),
        (["a"], ["a ", "a"], ["a"]),
        (["a,b"], ["a", "b"], ["a", "b"]),
        (["a, b"], ["a", " b"], ["a", " b"]),
        (["a,b,"], ["a", "b"], ["a", "b"]),
        (["a,b"], ["a", "b", "a,b"], ["a,b"]),
        (["Title, body"], ["Title, body", "Title", "body"], ["Title, body"]),
        ([" Title, body"], ["Title, body ", "x"], ["Title, body "]),
        (["Title, body,x"], ["Title", "body", "x"], ["Title", "body", "x"]),
        ([], ["a"], []),
        (["x"], {"x": 1, "y": 2}, ["x"]),
        (["a"], ["", "a", ""], ["a"]),
    ],
)
def test_resolve(names: list[str], present: Any, expected: list[str]) -> None:
    assert resolve(names, present, "f") == expected


@pytest.mark.parametrize(
    ("name", "present", "message"),
    [
        ("z", ["x", "y"], r"f: no column 'z'; choose from: x, y$"),
        ("lable", ["text", "label"], r"choose from: text, label \(did you mean 'label'\?\)"),
        ("TEXT", ["text", "textual"], r"\(did you mean 'text'\?\)"),
        ("text", [" Text"], r"\(did you mean ' Text'\?\)"),
        ("a,z", ["a", "b"], r"no column 'z'; choose from: a, b"),
        ("Title, bdy", ["Title, body", "x"], r"no column 'Title, bdy'.*did you mean 'Title, body'"),
        ("", ["a", ""], r"no column ''; choose from: a$"),
        (" ", ["a", " "], r"no column ' '; choose from: a$"),
        (",", ["a"], r"no column ','"),
        ("a", [" a", "a "], r"'a' may mean ' a' and 'a '; write the name with its spaces"),
        ("a", ["a", "b", "a"], r"two columns are named 'a'; rename one"),
        ("b,a", ["a", "b", "a"], r"two columns are named 'a'; rename one"),
    ],
)
def test_resolve_refuses(name: str, present: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve([name], present, "f")


def test_columns_of(make: Make) -> None:
    path = str(make("a.csv", "Title, body; label;\nx;y;\n"))
    assert resolve_columns(path, ["Title, body", "label"]) == ["Title, body", " label"]
    assert columns_of(str(make("b.csv", "a; b;\nx;y;\n"))) == ["a", " b"]
    assert columns_of(str(make("a.jsonl", '{"x": 1, "y": 2}\n{"z": 1}\n'))) == ["x", "y"]
    with pytest.raises(UserError, match=r"a\.jsonl:1: no column 'z'"):
        resolve_columns(str(make("a.jsonl", '{"x": 1}\n')), ["z"])
    with pytest.raises(UserError, match="no rows"):
        columns_of(str(make("a.jsonl", "\n")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text , label\na,1\n"),
        ("a.tsv", " text\tlabel \na\t1\n"),
        ("a.jsonl", '{"text ": "a", " label": "1"}\n{" text": "a", "label ": "1"}\n'),
    ],
)
def test_names_with_spaces(make: Make, name: str, content: str) -> None:
    found = load_examples(str(make(name, content)), ["text"], "label")
    assert set(found["text"][:]) == {"a"}
    assert set(found["label"][:]) == {"1"}


def test_several_columns_in_one_name(make: Make) -> None:
    path = str(make("a.csv", "a,b,c,d\n1,2,3,4\n"))
    found = load_examples(path, ["a, b"], "c")[0]
    assert (found["text"], found["text_pair"], found["label"]) == ("1", "2", "3")
    assert load_examples(path, "a,b")["text_pair"][:] == ["2"]
    with pytest.raises(UserError, match=r"one text column or two are needed, not 3 \(a, b, c\)"):
        load_examples(path, ["a,b", "c"])
    with pytest.raises(UserError, match="'c,d' names 2 columns; name the one of labels"):
        load_examples(path, ["a"], "c,d")


HUGE = "9" * 5000


@pytest.mark.parametrize(
    "other", ['"\\ud800"', '["\\uDFFF"]', '{"k": "\\ud83d"}', HUGE, f"[-{HUGE}]", "NaN", "-Infinity", "1e999"]
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv.gz", "parquet"])
def test_json_nobody_asked_for(tmp_path: Path, make: Make, other: str, suffix: str) -> None:
    path = make("a.jsonl", f'{{"x": "a", "o": {other}}}\n{{"o": {other}, "x": "b"}}\n')
    assert load_examples(str(path), ["x"])["text"][:] == ["a", "b"]
    with RowWriter(tmp_path / f"o.{suffix}") as writer:
        for row in iter_rows(path, ["x"]):
            writer.write(row.values)
    assert [row.wanted for row in iter_rows(tmp_path / f"o.{suffix}", ["x"])] == [("a",), ("b",)]


def test_json_names_nobody_asked_for(tmp_path: Path, make: Make) -> None:
    path = make("a.jsonl", '{"x": "a", "": 1, "\\ud800": 2}\n')
    assert list(next(iter_rows(path, ["x"])).values) == ["x", "column 2", "\ud800"]
    for suffix in ("jsonl", "csv", "parquet"):
        with RowWriter(tmp_path / f"o.{suffix}") as writer:
            writer.write(next(iter_rows(path)).values)
        assert len(next(iter_rows(tmp_path / f"o.{suffix}", ["x"])).values) == 3


@pytest.mark.parametrize("text", ['"\\uD83D"', '"a\\udc00\\ud800"', '["\\ud800"]'])
@pytest.mark.parametrize("name", ["x", " x"])
def test_half_a_pair_in_a_wanted_column(make: Make, text: str, name: str) -> None:
    path = make("a.jsonl", f'{{"x": "😀\\ud83d\\ude00"}}\n{{"{name}": {text}}}\n')
    rows = iter_rows(path, ["x"])
    assert next(rows).wanted == ("😀😀",)
    with pytest.raises(UserError, match=r"a\.jsonl:2: column ' ?x' holds half of a surrogate pair"):
        next(rows)


def write_parquet(path: Path, names: list[str], *columns: Any) -> str:
    pq.write_table(
        pa.Table.from_arrays([pa.array(c) if isinstance(c, list) else c for c in columns], names), path
    )
    return str(path)


BAD = {
    "seconds": pa.array([2**50, 2**50], pa.timestamp("s")),
    "days": pa.array([2**30, 2**30], pa.date32()),
    "text": pa.array([b"\xff", b"\xfe"]).view(pa.string()),
    "inside": pa.array([[2**50], []], pa.list_(pa.timestamp("s"))),
}


@pytest.mark.parametrize("kind", BAD)
def test_parquet_nobody_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", ["x", "o", "y"], ["a", "b"], BAD[kind], ["c", "d"])
    assert load_examples(path, ["x"])["text"][:] == ["a", "b"]
    assert not caplog.records
    assert [row.values for row in iter_rows(path, ["x"])] == [{"x": "a", "y": "c"}, {"x": "b", "y": "d"}]
    assert [record.message[:-1] for record in caplog.records] == [caplog.messages[0][:-1]]
    assert "column 'o' cannot be read from row 1 on (" in caplog.text
    assert "it is left out" in caplog.text
    for read in (lambda: iter_rows(path, ["o"]), lambda: load_examples(path, ["x"], "o")):
        with pytest.raises(UserError, match=r"a\.parquet: column 'o' cannot be read from row 1 on"):
            read()


def test_parquet_that_goes_bad_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    late = pa.array([0] * 5000 + [2**50], pa.timestamp("s"))
    path = write_parquet(tmp_path / "a.parquet", ["x", "o"], ["a"] * 5001, late)
    with RowWriter(tmp_path / "o.parquet") as writer:
        for row in iter_rows(path, ["x"]):
            writer.write(row.values)
    assert [row.values["o"] is None for row in iter_rows(tmp_path / "o.parquet")].count(False) == 4096
    assert caplog.text.count("from row 4097 on") == 1


@pytest.mark.parametrize("zone", ["tzutc()", "Nowhere/Land", "tzlocal()"])
def test_unknown_zones(tmp_path: Path, zone: str) -> None:
    times = pa.array([0, None], pa.timestamp("us", zone))
    path = write_parquet(tmp_path / "a.parquet", ["x", "o"], ["a", "b"], times)
    found = [row.values["o"] for row in iter_rows(path, ["x"])]
    assert found == [datetime(1970, 1, 1, tzinfo=UTC), None]
    for suffix in ("jsonl", "csv", "parquet"):
        with RowWriter(tmp_path / f"o.{suffix}") as writer:
            for row in iter_rows(path, ["x"]):
                writer.write(row.values)
        assert str(next(iter_rows(tmp_path / f"o.{suffix}")).values["o"]) == "1970-01-01 00:00:00+00:00"


def test_parquet_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["x", "", "x.y", "z", "z", "s"]
    path = write_parquet(tmp_path / "a.parquet", names, ["1"], ["2"], ["3"], ["4"], ["5"], [{"x": 6}])
    row = next(iter_rows(path, ["x"]))
    assert row.values == {"x": "1", "column 2": "2", "x.y": "3", "z": "4", "z (2)": "5", "s": {"x": 6}}
    assert "are called 'column 2', 'z (2)'" in caplog.text
    assert load_examples(path, ["x"], "x.y")[0] == {"text": "1", "label": "3", "line": 1}
    with pytest.raises(UserError, match="two columns are named 'z'"):
        load_examples(path, ["z"])


def test_more_digits_than_python_converts_may_be_a_text(make: Make) -> None:
    assert load_examples(str(make("a.jsonl", json.dumps({"n": 1})[:-2] + HUGE + "}")), ["n"])["text"][:] == [
        HUGE
    ]
