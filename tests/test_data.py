"""Reading and writing rows: round trips, streaming, and an error for each broken input."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.data import Row, RowWriter, iter_rows, load_examples
from thresher.errors import UserError

Make = Callable[[str, "str | bytes"], Path]

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
few = settings(max_examples=25, deadline=None)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
        return path

    return write


def round_trip(suffix: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"new/rows{suffix}"
        with RowWriter(path) as writer:
            for row in rows:
                writer.write(row)
        return [row.values for row in iter_rows(path, list(rows[0]))]


@few
@given(st.lists(st.fixed_dictionaries({"a": texts, "b": texts}), min_size=1), st.sampled_from(["", ".gz"]))
def test_round_trip_text(rows: list[dict[str, str]], packed: str) -> None:
    assert round_trip(".csv" + packed, rows) == rows
    squeezed = [{k: re.sub(r"[\t\r\n]+", " ", v) for k, v in row.items()} for row in rows]
    assert round_trip(".tsv" + packed, rows) == squeezed


@few
@given(st.lists(st.fixed_dictionaries({"a": texts}), min_size=1))
def test_round_trip_one_column(rows: list[dict[str, str]]) -> None:
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
        ("a.csv", "x,y\n1,2\n".encode("utf-16"), r"a\.csv:1: byte 0xff is not UTF-8"),
        ("a.parquet", b"no such thing", r"a\.parquet: cannot be read .*not a whole Parquet file"),
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
    monkeypatch.setattr("thresher.data.open", denied, raising=False)
    with pytest.raises(UserError, match="Permission denied"):
        iter_rows(path)


@pytest.mark.parametrize("damage", ["cut", "not gzip", "garbled"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    packed = gzip.compress("".join(f"{i}\n" for i in range(20_000)).encode())
    half = len(packed) // 2
    content = {
        "cut": packed[:half],
        "not gzip": b"x\n1\n",
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
    with pytest.raises(UserError, match="big.tsv:50002:"):
        next(rows)

    def lines(*_: object) -> Iterator[str]:
        yield from ("x\n", "first\n")
        pytest.fail("read more than the first row")

    monkeypatch.setattr("thresher.data._lines", lines)
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


def test_load_examples(make: Make) -> None:
    path = str(make("a.csv", 'x,y,z\n1,"b\nc",p\n2,d,q\n'))
    found = load_examples(path, ["x", "y"], "z")
    assert found.column_names == ["text", "text_pair", "label", "line"]
    assert found[:] == {"text": ["1", "2"], "text_pair": ["b\nc", "d"], "label": ["p", "q"], "line": [2, 4]}
    assert found.features["line"].dtype == "int64"
    assert load_examples(path, ["y"]).column_names == ["text", "line"]
    assert load_examples(path, "y")["text"][:] == ["b\nc", "d"]


@pytest.mark.parametrize(
    "labels",
    [[1, 2.5], [2.5, 1], [1, 2], [True, False], ["a", "b"], [["a"], []], [[], ["a", "b"]], [[1], [2]]],
)
def test_label_types(make: Make, labels: list) -> None:
    lines = [json.dumps({"t": i, "l": label}) for i, label in enumerate(labels)]
    found = load_examples(str(make("a.jsonl", "\n".join(lines))), ["t"], "l")
    assert found[:] == {"text": ["0", "1"], "label": labels, "line": [1, 2]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['{"t": null, "l": 1}'], ":2: column 't' has no text"),
        (['{"t": NaN, "l": 1}'], ":2: column 't' has no text"),
        (['{"t": [1], "l": 1}'], ":2: column 't' is a list, not a text"),
        (['{"t": "a", "l": null}'], ":2: column 'l' has no label"),
        (['{"t": "a", "l": " "}'], ":2: column 'l' has no label"),
        (['{"t": "a", "l": NaN}'], ":2: column 'l' has no label"),
        (['{"t": "a"}'], ":2: no column 'l'; choose from: t"),
        (['{"t": "a", "l": 2}', '{"t": "a", "l": "b"}'], ":3: column 'l' holds 'b', of another type"),
        (['{"t": "a", "l": [1]}'], r":2: column 'l' holds \[1\], of another type"),
    ],
)
def test_examples_refused(make: Make, rows: list[str], message: str) -> None:
    path = make("a.jsonl", "\n".join(['{"t": "a", "l": 1}', *rows]))
    with pytest.raises(UserError, match=r"a\.jsonl" + message):
        load_examples(str(path), ["t"], "l")


def test_empty_label_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"a\.tsv:3: column 'y' has no label"):
        load_examples(str(make("a.tsv", "x\ty\na\tb\na\t\n")), ["x"], "y")


@pytest.mark.parametrize("columns", [[], ["x", "y", "z"]])
def test_one_or_two_text_columns(make: Make, columns: list[str]) -> None:
    with pytest.raises(UserError, match="one text column or two are needed"):
        load_examples(str(make("a.tsv", "x\ty\tz\n1\t2\t3\n")), columns)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    calls: list[tuple] = []
    rows = {"s": ["one", "two"], "n": [1, 2], "c": [1, 0], "m": [[0, 1], []], "h": [0, -1]}
    named = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features(
        {
            "s": datasets.Value("string"),
            "n": datasets.Value("int64"),
            "c": named,
            "m": datasets.List(named),
            "h": named,
        }
    )

    def load(name: str, config: str | None = None, *, split: str) -> datasets.Dataset:
        calls.append((name, config, split))
        if name == "missing":
            raise ConnectionError("offline\nand so on")
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


def test_hub(hub: list[tuple]) -> None:
    found = load_examples("imdb", ["s"], "c", split="test")
    assert found[:] == {"text": ["one", "two"], "label": ["pos", "neg"], "line": [1, 2]}
    assert load_examples("own-er/na.me:dev", ["s"], "m")["label"][:] == [["neg", "pos"], []]
    assert load_examples("glue:mrpc:validation", ["s", "n"], "n")["label"][:] == [1, 2]
    load_examples("imdb", ["s"])
    assert hub == [
        ("imdb", None, "test"),
        ("own-er/na.me", None, "dev"),
        ("glue", "mrpc", "validation"),
        ("imdb", None, "train"),
    ]


def test_hub_refused(hub: list[tuple], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"missing:x: neither a file nor .*\(ConnectionError: offline and so on\)"
    ):
        load_examples("missing:x", ["s"])
    with pytest.raises(UserError, match="imdb: no column 'z'; choose from: s, n, c, m, h"):
        load_examples("imdb", ["z"])
    with pytest.raises(UserError, match="imdb:2: column 'h' has no label"):
        load_examples("imdb", ["s"], "h")
    hub.clear()
    for source in ("none.tsv", "a/b/c", "./none", "a:b:c:d", "a:", str(tmp_path / "none")):
        with pytest.raises(UserError, match="no such file"):
            load_examples(source, ["s"])
    assert not hub


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
def test_writer_keeps_rows_when_interrupted(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(KeyboardInterrupt), RowWriter(path) as writer:
        for i in range(5000):
            writer.write({"n": str(i)})
        raise KeyboardInterrupt
    assert [row.values["n"] for row in iter_rows(path)] == [str(i) for i in range(5000)]


def test_writer_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"out\.txt: unknown file type"):
        RowWriter(tmp_path / "out.txt")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written .*choose another path"):
        RowWriter(tmp_path / "file/out.tsv").__enter__()
    for suffix in (".tsv", ".csv", ".parquet"):
        path = tmp_path / f"a{suffix}"
        with pytest.raises(UserError, match=r"the first row has no column 'y'; write \.jsonl"):
            with RowWriter(path) as writer:
                writer.write({"x": "1"})
                writer.write({"x": "2", "y": "3"})
        assert [row.values for row in iter_rows(path)] == [{"x": "1"}]


def test_writer_parquet_types(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    first = [{"i": i, "null": None, "mixed": "a" if i else 1, "dict": {"i": i}} for i in range(4096)]
    with pytest.raises(UserError, match=r"1\.5 does not fit column 'i' of type int64; write \.jsonl"):
        with RowWriter(path) as writer:
            for row in first:
                writer.write(row)
            writer.write({"i": 4096, "null": 0.5, "mixed": [1]})
            writer.write({"i": 1.5})
    rows = [row.values for row in iter_rows(path)]
    assert rows[0] == {"i": 0, "null": None, "mixed": "1", "dict": '{"i": 0}'}
    assert rows[4096:] == [{"i": 4096, "null": "0.5", "mixed": "[1]", "dict": None}]
    assert pq.ParquetFile(path).num_row_groups == 2


@pytest.mark.parametrize("suffix", [".tsv", ".parquet"])
def test_writer_without_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with RowWriter(path):
        pass
    with pytest.raises(UserError, match="no rows"):
        iter_rows(path)
