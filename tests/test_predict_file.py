"""Predictions for files of all kinds: what is carried, what is refused, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests import toy
from thresher.config import PruningConfig
from thresher.data import iter_rows
from thresher.errors import UserError
from thresher.measure import stream
from thresher.measure.stream import predict_file
from thresher.model import prune
from thresher.tasks import Task

Make = Callable[[str, "str | bytes"], Path]


def save(
    folder: Path, names: tuple[str, ...] = ("neg", "pos"), text: tuple[str, ...] = ("text",), **config: Any
) -> str:
    base = toy.save_model(folder / "base", names, **config)
    model = prune(AutoModelForSequenceClassification.from_pretrained(base), PruningConfig())
    model.metadata = {"text": list(text)}
    model.save_pretrained(folder / "pruned")
    toy.tokenizer().save_pretrained(folder / "pruned")
    return str(folder / "pruned")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tagger")
    return save(folder, ("bug", "docs", "ui"), problem_type="multi_label_classification")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(name: str, content: str | bytes) -> Path:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / name

    return write


def read(path: Path) -> list[dict[str, Any]]:
    return [row.values for row in iter_rows(path)]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", " text ;n\na film, good;1\n", []),
        ("a.csv", "Title, body;n\na film, good;1\n", ["Title, body"]),
        ("a.tsv", 'text,n\n"a film, good",1\n', []),
        ("a.tsv", "text\tn\na film, good\t1\n".encode("utf-16"), []),
        ("a.csv", "text|n\ra film, good|1\r", ["text"]),
        ("a.jsonl", '{" text": "a film, good", "n": "1"}', ["text "]),
    ],
)
def test_names_and_kinds(model: str, make: Make, name: str, content: str | bytes, text: list[str]) -> None:
    output = make("o.jsonl", "")
    assert predict_file(model, make(name, content), output, text, force=True) == 1
    (row,) = read(output)
    assert list(row.values())[:2] == ["a film, good", "1"]
    assert list(row)[2:] == ["prediction", "score"]


def test_a_pair_in_one_name(tmp_path: Path, make: Make) -> None:
    folder = save(tmp_path / "pair", text=("a", "b"))
    source = make("a.csv", "a,b,c\ngood,bad,1\nbad,good,2\n")
    outputs = [tmp_path / f"{i}.tsv" for i in range(3)]
    for output, text in zip(outputs, ([], ["a,b"], ["b", "a"]), strict=True):
        predict_file(folder, source, output, text)
    scores = [[row["score"] for row in read(output)] for output in outputs]
    assert scores[0] == scores[1] != scores[2]
    with pytest.raises(UserError, match=r"not 3 \(a, b, c\)"):
        predict_file(folder, source, tmp_path / "o.tsv", ["a,b", "c"])


@pytest.mark.parametrize("suffix", ["tsv", "csv.gz", "jsonl", "parquet"])
def test_other_columns_are_carried(
    model: str, tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    output = tmp_path / f"o.{suffix}"
    predict_file(
        model, make("a.csv", "text,,x,x\ngood,1,2,3\nbad\n".replace("bad", "bad,4,5,6,,")), output, []
    )
    assert [list(row)[:4] for row in read(output)] == [["text", "column 2", "x", "x (2)"]] * 2
    assert [list(row.values())[1:4] for row in read(output)] == [["1", "2", "3"], ["4", "5", "6"]]
    assert caplog.text.count("are called 'column 2', 'x (2)'") == 1
    lines = ['{"text": "good", "o": "\\ud800", "n": NaN, "big": ' + "9" * 5000 + ', "l": []}'] * 2
    predict_file(model, make("a.jsonl", "\n".join(lines)), output, [], force=True)
    assert len(read(output)) == 2


@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "parquet"])
def test_other_columns_of_parquet(
    model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    zone, late = pa.array([0, 1], pa.timestamp("us", "tzutc()")), pa.array([2**50] * 2, pa.timestamp("s"))
    table = pa.Table.from_arrays([pa.array(["good", "bad"]), zone, late], ["text", "zone", "late"])
    pq.write_table(table, tmp_path / "a.parquet")
    predict_file(model, tmp_path / "a.parquet", tmp_path / f"o.{suffix}", [])
    rows = read(tmp_path / f"o.{suffix}")
    assert [list(row) for row in rows] == [["text", "zone", "prediction", "score"]] * 2
    assert str(rows[0]["zone"]) == "1970-01-01 00:00:00+00:00"
    assert caplog.text.count("column 'late' cannot be read") == 1


BROKEN = {
    "null": ("jsonl", '{"text": null}', ":6: column 'text' has no text"),
    "nan": ("jsonl", '{"text": NaN}', ":6: column 'text' has no text"),
    "list": ("jsonl", '{"text": ["a"]}', ":6: column 'text' is a list, not a text"),
    "half": ("jsonl", '{"text": "\\ud800"}', ":6: column 'text' holds half of a surrogate pair"),
    "absent": ("jsonl", '{"txt": "a"}', ":6: no column 'text'.*did you mean 'txt'"),
    "taken": ("jsonl", '{"text": "a", "score": 1}', ":6 has a column 'score' already"),
    "json": ("jsonl", "{", ":6: invalid JSON"),
    "fields": ("tsv", "a\tb\tc", ":7: expected 2 fields"),
    "bytes": ("tsv", b"\xff\tb", ":7: byte 0xff is not UTF-8"),
    "nul": ("csv", "a\0,b", ":7: holds a NUL byte"),
    "quotes": ("csv", '"a"b,c', ":7: broken CSV"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize(("chunk", "suffix"), [(2, "tsv"), (5, "parquet"), (100, "jsonl.gz")])
def test_rows_before_a_fault_are_kept(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, chunk: int, suffix: str
) -> None:
    monkeypatch.setattr(stream, "CHUNK", chunk)
    form, fault, message = BROKEN[kind]
    head, row = {
        "jsonl": ("", '{"text": "good film"}\n'),
        "tsv": ("text\tn\n", "good film\t1\n"),
        "csv": ("text,n\n", "good film,1\n"),
    }[form]
    source, output = tmp_path / f"a.{form}", tmp_path / f"o.{suffix}"
    wrong = fault if isinstance(fault, bytes) else fault.encode()
    source.write_bytes((head + row * 5).encode() + wrong + b"\n" + row.encode() * 3)
    with pytest.raises(UserError, match=message) as error:
        predict_file(model, source, output, [])
    assert str(error.value).endswith(
        f". The rows before it are in {output}; mend the file, and --resume goes on after them."
    )
    assert [row["text"] for row in read(output)] == ["good film"] * 5
    source.write_text(head + row * 9)
    assert predict_file(model, source, output, [], resume=True) == 9
    assert len(read(output)) == 9
    assert len({row["prediction"] for row in read(output)}) == 1
    assert {path.name for path in tmp_path.iterdir()} == {source.name, output.name}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": null}\n{"text": "good"}'),
        ("a.jsonl", '{"text": "good", "prediction": 1}'),
        ("a.csv", "text,score\ngood,1\n"),
        ("a.csv", "wrong\ngood\n"),
        ("a.csv", "text,text\ngood,1\n"),
        ("a.csv", "text\n"),
        ("a.csv", b"PK\x03\x04"),
    ],
)
def test_a_fault_at_the_start_leaves_the_output_alone(
    model: str, make: Make, name: str, content: str | bytes
) -> None:
    output, told = make("o.tsv", "precious"), []

    def stage(name: str, total: int | None = None) -> Any:
        return told.append

    for how in ({"force": True}, {"resume": True}):
        with pytest.raises(UserError, match=r"a\.\w+:?") as error:
            predict_file(model, make(name, content), output, [], stage=stage, **how)
        assert "resume" not in str(error.value)
    assert output.read_text() == "precious"
    assert not told


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "parquet"])
def test_multi_label(tagger: str, tmp_path: Path, make: Make, suffix: str) -> None:
    source, output = make("a.tsv", "text\tn\n" + "good film\t1\nbad\t2\n" * 3), tmp_path / f"o.{suffix}"
    assert predict_file(tagger, source, output, []) == 6
    for row in read(output):
        prediction = (
            json.loads(row["prediction"]) if isinstance(row["prediction"], str) else row["prediction"]
        )
        score = json.loads(row["score"]) if isinstance(row["score"], str) else row["score"]
        assert list(score) == ["bug", "docs", "ui"]
        assert prediction == [name for name, value in score.items() if value > 0.5]
    before = read(output)
    assert predict_file(tagger, source, output, [], resume=True) == 6
    assert read(output)[:5] == before[:5]
    assert read(output)[5]["prediction"] == before[5]["prediction"]


def test_multi_label_of_none(tagger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = 4096
    (tmp_path / "a.tsv").write_text("text\n" + "good\n" * many + "bad\n")
    answers = {"prediction": [], "score": {"bug": 0.1}}
    seen = iter([answers] * many + [{"prediction": ["bug"], "score": {"bug": 0.9}}])
    monkeypatch.setattr(stream, "_columns", lambda *_: next(seen))
    predict_file(tagger, tmp_path / "a.tsv", tmp_path / "o.parquet", [])
    assert [row["prediction"] for row in read(tmp_path / "o.parquet")] == [[]] * many + [["bug"]]


@pytest.mark.parametrize(
    ("task", "logits", "expected"),
    [
        (
            Task("multi-label", ("a", "b")),
            [0.0, 1.0],
            {"prediction": ["b"], "score": {"a": 0.5, "b": 0.731059}},
        ),
        (Task("multi-label", ("a", "b")), [-900.0, 900.0], {"prediction": ["b"], "score": {"a": 0, "b": 1}}),
        (Task("multi-label", ("a",)), [1.0], {"prediction": ["a"], "score": 0.731059}),
        (Task("multi-label", ("a",)), [-1.0], {"prediction": [], "score": 0.268941}),
        (Task("regression", ("s",)), [2.5], {"prediction": 2.5}),
        (Task("single-label", ("a", "b")), [0.0, 0.0], {"prediction": "a", "score": 0.5}),
    ],
)
def test_columns(task: Task, logits: list[float], expected: dict[str, Any]) -> None:
    with np.errstate(all="raise", under="ignore"):
        found = stream._columns(task, np.array(logits, np.float32))
    assert found["prediction"] == expected["prediction"]
    assert found.get("score") == pytest.approx(expected.get("score"), abs=1e-6)
    json.dumps(found)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("suffix", ["tsv", "jsonl.gz", "parquet"])
def test_a_full_disk(model: str, tmp_path: Path, make: Make, suffix: str) -> None:
    output = tmp_path / f"o.{suffix}"
    output.symlink_to("/dev/full")
    with pytest.raises(UserError, match=rf"o\.{suffix}: cannot be written \(No space left on device\)"):
        predict_file(model, make("a.tsv", "text\ngood\n"), output, [], force=True)


def test_an_interrupt_before_the_first_rows_can_be_resumed(model: str, make: Make) -> None:
    output = make("o.tsv", "")
    assert predict_file(model, make("a.tsv", "text\ngood\n"), output, [], resume=True) == 1
