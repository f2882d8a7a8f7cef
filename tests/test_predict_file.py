"""Predictions for files of all kinds: what is carried, what is refused, and what is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
from thresher.data import RowWriter, iter_rows
from thresher.errors import UserError
from thresher.inference import stream
from thresher.inference.predict import predict
from thresher.inference.stream import predict_file
from thresher.model import prune
from thresher.tasks import Task
from thresher.tasks.multi_label import MultiLabel
from thresher.tasks.regression import Regression
from thresher.tasks.single_label import SingleLabel

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
        f". The rows before it are in {output}; mend the file, and set `resume` to go on after them."
    )
    assert [row["text"] for row in read(output)] == ["good film"] * 5
    source.write_text(head + row * 9)
    assert predict_file(model, source, output, [], resume=True) == 9
    assert len(read(output)) == 9
    assert len({row["prediction"] for row in read(output)}) == 1
    assert {path.name for path in tmp_path.iterdir()} == {source.name, output.name, f".{output.name}.run"}


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
    monkeypatch.setattr(MultiLabel, "columns", lambda *_: next(seen))
    predict_file(tagger, tmp_path / "a.tsv", tmp_path / "o.parquet", [])
    assert [row["prediction"] for row in read(tmp_path / "o.parquet")] == [[]] * many + [["bug"]]


@pytest.mark.parametrize(
    ("task", "logits", "expected"),
    [
        (
            MultiLabel(("a", "b")),
            [0.0, 1.0],
            {"prediction": ["b"], "score": {"a": 0.5, "b": 0.731059}},
        ),
        (MultiLabel(("a", "b")), [-900.0, 900.0], {"prediction": ["b"], "score": {"a": 0, "b": 1}}),
        (MultiLabel(("a",)), [1.0], {"prediction": ["a"], "score": 0.731059}),
        (MultiLabel(("a",)), [-1.0], {"prediction": [], "score": 0.268941}),
        (Regression(("s",)), [2.5], {"prediction": 2.5}),
        (SingleLabel(("a", "b")), [0.0, 0.0], {"prediction": "a", "score": 0.5}),
    ],
)
def test_columns(task: Task, logits: list[float], expected: dict[str, Any]) -> None:
    with np.errstate(all="raise", under="ignore"):
        found = task.columns(np.array(logits, np.float32))
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


@pytest.mark.parametrize(
    ("name", "content"),
    [("o.tsv", ""), ("o.tsv", "text\tpredic"), ("o.csv.gz", b"\x1f\x8b"), ("o.parquet", b"PAR1\0\0")],
)
def test_an_output_without_rows_can_be_resumed(
    model: str, make: Make, name: str, content: str | bytes
) -> None:
    output = make(name, content)
    assert predict_file(model, make("a.tsv", "text\ngood\n"), output, [], resume=True) == 1
    assert len(read(output)) == 1


def interrupted(model: str, source: Path, output: Path, monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    """A run that ends, by Ctrl-C, in its third chunk of two rows."""
    calls: list[int] = []

    def run(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(*arguments, **options)

    monkeypatch.setattr(stream, "CHUNK", 2)
    with monkeypatch.context() as patch:
        patch.setattr(stream, "predict", run)
        with pytest.raises(KeyboardInterrupt):
            predict_file(model, source, output, [], **how)


def sizes_of_chunks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each chunk that the model runs on from now, how many texts it has."""
    sizes: list[int] = []

    def run(model: Any, encoder: Any, rows: Any, **options: Any) -> Any:
        sizes.append(len(rows["input_ids"]))
        return predict(model, encoder, rows, **options)

    monkeypatch.setattr(stream, "predict", run)
    return sizes


ROWS = [f"a {word} film\t{number}\n" for number, word in enumerate(["good", "bad", "very"] * 3)]
WHOLE = "text\tn\n" + "".join(ROWS)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """As `model`, with other weights, and with two budgets."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("ladder")
    base = toy.save_model(folder / "base", ("neg", "pos"))
    options = PruningConfig(options={"budgets": [0.7, 0.5]})
    pruned = prune(AutoModelForSequenceClassification.from_pretrained(base), options)
    pruned.metadata = {"text": ["text"]}
    pruned.save_pretrained(folder / "pruned")
    toy.tokenizer().save_pretrained(folder / "pruned")
    return str(folder / "pruned")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model", "had another model"),
        ("budget", r"another `budget` \(0.7, now 0.5\)"),
        ("precision", r"another `precision` \(fp32, now bf16\)"),
        ("max_length", "another `max_length`"),
        ("text", "another `text`"),
        ("input", "its rows 3 to 4, which were answered, have changed"),
        ("fewer", "fewer rows than"),
    ],
)
@pytest.mark.parametrize("ended", [False, True])
def test_another_run_does_not_go_on(
    model: str,
    ladder: str,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    said: str,
    ended: bool,
) -> None:
    source, output = make("a.tsv", WHOLE), make("o.tsv", "")
    interrupted(ladder, source, output, monkeypatch, resume=True)
    if ended:
        predict_file(ladder, source, output, [], resume=True)
    before = output.read_bytes()
    how: dict[str, Any] = {
        "budget": {"budget": 0.5},
        "precision": {"precision": "bf16"},
        "max_length": {"max_length": 5},
    }.get(change, {})
    if change == "input":
        source.write_text(WHOLE.replace("\t3", "\t4"))
    if change == "fewer":
        source.write_text("text\tn\n" + "".join(ROWS[:2]))
    text = ["n"] if change == "text" else []
    expected = "the input has changed since" if ended and change in ("input", "fewer") else said
    with pytest.raises(UserError, match=f"{expected}.*`force`"):
        predict_file(model if change == "model" else ladder, source, output, text, resume=True, **how)
    assert output.read_bytes() == before
    source.write_text(WHOLE)
    assert predict_file(ladder, source, output, [], resume=True) == 9
    assert [row["n"] for row in read(output)] == [str(number) for number in range(9)]


@pytest.mark.parametrize("suffix", ["tsv", "csv.gz", "jsonl", "parquet"])
def test_a_resumed_run_writes_the_same_bytes(
    model: str, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    source, output, alone = make("a.tsv", WHOLE), tmp_path / f"o.{suffix}", tmp_path / f"alone.{suffix}"
    interrupted(model, source, output, monkeypatch)
    journal = tmp_path / f".o.{suffix}.run"
    assert len(journal.read_bytes().splitlines()) == 3
    journal.write_bytes(journal.read_bytes()[:-7])  # torn: the second chunk is to be answered again
    with pytest.raises(UserError, match=r"was interrupted\. Set `resume`"):
        predict_file(model, source, output, [])
    said: list[int] = []
    monkeypatch.setattr(
        stream, "predict", lambda *a, **k: said.append(len(a[2]["input_ids"])) or predict(*a, **k)
    )
    assert predict_file(model, source, output, [], resume=True) == 9
    assert said == [2, 2, 2, 1]
    assert predict_file(model, source, alone, []) == 9
    assert output.read_bytes() == alone.read_bytes()
    assert predict_file(model, source, output, [], resume=True) == 9
    assert len(said) == 9  # alone 5, and 4 before: a finished run is not run again
    output.write_bytes(output.read_bytes() + b"more")
    with pytest.raises(UserError, match="has changed since its run ended"):
        predict_file(model, source, output, [], resume=True)
    for changed in (alone.read_bytes()[:50], bytes(len(alone.read_bytes()))):
        output.write_bytes(changed)
        with pytest.raises(UserError, match="has changed since its run ended"):
            predict_file(model, source, output, [], resume=True)
        assert output.read_bytes() == changed
    output.write_bytes(b"")
    assert predict_file(model, source, output, [], resume=True) == 9
    assert output.read_bytes() == alone.read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("o.tsv", "text\tprediction\ngood\tneg\n"),
        ("o.csv", "caf\xe9, one of many bytes that are not UTF-8\n".encode("cp1252")),
        ("o.jsonl", '[{"text": "an array and no lines of JSON"}]'),
        ("o.jsonl.gz", "text in the clear, which is no gzip, but dear to somebody"),
    ],
)
def test_what_an_unknown_run_has_written_stays(
    model: str, make: Make, name: str, content: str | bytes
) -> None:
    output = make(name, content)
    before = output.read_bytes()
    with pytest.raises(UserError, match="no note beside it says which run"):
        predict_file(model, make("a.tsv", "text\ngood\nbad\n"), output, [], resume=True)
    assert output.read_bytes() == before


def test_what_is_no_fault_of_the_input_leaves_the_output_alone(
    model: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output, calls = make("a.tsv", WHOLE), make("o.tsv", "precious"), []
    monkeypatch.setattr(stream, "CHUNK", 2)

    def run(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return predict(*arguments, **options)

    monkeypatch.setattr(stream, "predict", run)
    with pytest.raises(MemoryError):
        predict_file(model, source, output, [], force=True)
    assert output.read_text() == "precious"
    assert predict_file(model, source, output, [], resume=True) == 9


@pytest.mark.parametrize("line", [b'["a", [{}]]', b'["a", 5]', b"5", b"\0\0\0"])
def test_a_damaged_journal_is_answered_anew(
    model: str, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    source, output, journal = make("a.tsv", WHOLE), tmp_path / "o.tsv", tmp_path / ".o.tsv.run"
    interrupted(model, source, output, monkeypatch)
    first, second, _ = journal.read_bytes().splitlines()
    digest = json.dumps(json.loads(second)[0]).encode()
    journal.write_bytes(first + b"\n" + line.replace(b'"a"', digest) + b"\n")
    assert predict_file(model, source, output, [], resume=True) == 9
    assert len(read(output)) == 9


def test_the_input_is_not_removed(model: str, tmp_path: Path, make: Make) -> None:
    for name in (".partial-o.tsv", "o.tsv"):
        source = make(name, WHOLE)
        with pytest.raises(UserError, match="is the input as well, or would remove it"):
            predict_file(model, source, tmp_path / "o.tsv", [], force=True)
        assert source.read_text() == WHOLE
    (tmp_path / "loop.tsv").symlink_to("loop.tsv")
    with pytest.raises(UserError, match="leads nowhere"):
        predict_file(model, source, tmp_path / "loop.tsv", [])
    os.mkfifo(tmp_path / ".p.tsv.run")
    with pytest.raises(UserError, match="is no file, but the name of a note"):
        predict_file(model, source, tmp_path / "p.tsv", [])


def test_chunks_end_at_many_characters(
    model: str, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CHARACTERS", 1000)
    sizes: list[int] = []
    monkeypatch.setattr(
        stream, "predict", lambda *a, **k: sizes.append(len(a[2]["input_ids"])) or predict(*a, **k)
    )
    long = "good film " * 60
    source = make("a.tsv", "text\tn\n" + f"{long}\t1\n" * 3 + f"good\t{'9' * 2000}\n" + "good\t1\n" * 9)
    assert predict_file(model, source, tmp_path / "o.tsv", []) == 13
    assert sizes == [2, 2, 9]


def test_one_of_two_writers_is_refused(model: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = make("a.tsv", WHOLE), make("o.tsv", "")

    def second(*arguments: Any, **options: Any) -> Any:
        with pytest.raises(UserError, match=rf"o.tsv is being written by process {os.getpid()} on .+ \("):
            predict_file(model, source, output, [], force=True)
        return predict(*arguments, **options)

    monkeypatch.setattr(stream, "predict", second)
    assert predict_file(model, source, output, [], force=True) == 9
    assert len(read(output)) == 9
    assert {path.name for path in output.parent.iterdir()} == {"a.tsv", "o.tsv", ".o.tsv.run"}


@pytest.mark.parametrize("ended", [False, True])
def test_answers_that_are_no_numbers(
    model: str, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """Their rows are without a prediction, all others have theirs, and the run does not end well."""

    def partly(*arguments: Any, **options: Any) -> Any:
        found = predict(*arguments, **options)
        found.logits[1::4] = np.nan
        return found

    monkeypatch.setattr(stream, "predict", partly)
    source, output = make("a.tsv", WHOLE), tmp_path / "o.jsonl"
    for resume in (False, True) if ended else (False,):
        with pytest.raises(UserError, match="2 of 9 rows have no prediction"):
            predict_file(model, source, output, [], resume=resume)
    rows = [json.loads(line, parse_constant=pytest.fail) for line in output.read_text().splitlines()]
    assert [row["prediction"] is None for row in rows] == [number % 4 == 1 for number in range(9)]
    assert [row["score"] is None for row in rows] == [number % 4 == 1 for number in range(9)]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.parquet"])
def test_standard_output_has_rows_alone(
    model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    source = tmp_path / name
    with RowWriter(source) as writer:
        for number in range(3):
            writer.write({"text": "a good film", "n": str(number)})
    assert predict_file(model, source, Path("-"), []) == 3
    copy = tmp_path / ("copy.jsonl" if name.endswith("parquet") else f"copy-{name}")
    copy.write_text(capfd.readouterr().out)
    assert [row["n"] for row in read(copy)] == ["0", "1", "2"]
    assert {row["prediction"] for row in read(copy)} <= {"neg", "pos"}
    assert {path.name for path in tmp_path.iterdir()} == {name, copy.name}
    with pytest.raises(UserError, match="leave out `resume`"):
        predict_file(model, source, Path("-"), [], resume=True)


def test_the_command_prints_nothing_among_the_rows(model: str, make: Make) -> None:
    command = (
        f"{sys.executable} -m thresher predict {model} --input {make('a.tsv', WHOLE)} --output /dev/stdout"
    )
    answers = make("answers.tsv", "")
    with answers.open("w") as file:
        found = subprocess.run(command.split(), stdout=file, stderr=subprocess.PIPE, check=True, text=True)
    lines = answers.read_text().splitlines()
    assert lines[0] == "text\tn\tprediction\tscore"
    assert len(lines) == 10
    assert "9 rows" in found.stderr
