"""Predictions for a file."""

from __future__ import annotations

import pytest

from tests import toy
from tests.cli.calling import call
from thresher import PrunedModel
from thresher.data import iter_rows


def test_a_bad_precision_leaves_an_output_alone(world, tmp_path):
    (tmp_path / "o.tsv").write_text("precious")
    arguments = ["predict", world / "pruned", "--input", world / "eval.tsv", "--output", tmp_path / "o.tsv"]
    assert call(*arguments, "--force", "--precision", "fp8")[0] == 2
    assert call(*arguments, "--force", "--engine", "tpu")[0] == 2
    arguments[3] = tmp_path / "absent.tsv"
    assert call(*arguments, "--force")[0] == 2
    assert (tmp_path / "o.tsv").read_text() == "precious"


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl.gz", "parquet"])
def test_predict_every_format_in_order(world, tmp_path, suffix):
    code, said = call(
        "predict", world / "pruned", "--input", world / "eval.tsv", "--output", tmp_path / f"o.{suffix}"
    )
    assert code == 0, said
    written = [row.values for row in iter_rows(tmp_path / f"o.{suffix}")]
    read = [row.values for row in iter_rows(world / "eval.tsv")]
    assert [row["text"] for row in written] == [row["text"] for row in read]
    assert {row["prediction"] for row in written} <= {"neg", "pos"}
    assert all(0.5 <= float(row["score"]) <= 1 for row in written)


def test_predict_does_not_depend_on_chunks(world, tmp_path, monkeypatch):
    from thresher.inference import stream

    call("predict", world / "pruned", "--input", world / "eval.tsv", "--output", tmp_path / "whole.tsv")
    monkeypatch.setattr(stream, "CHUNK", 7)
    call("predict", world / "pruned", "--input", world / "eval.tsv", "--output", tmp_path / "chunks.tsv")
    whole, chunks = ([row.values for row in iter_rows(tmp_path / f"{n}.tsv")] for n in ("whole", "chunks"))
    assert [row["prediction"] for row in whole] == [row["prediction"] for row in chunks]


def test_predict_keeps_what_is_done_and_resumes(world, tmp_path, monkeypatch):
    from thresher.inference import stream

    monkeypatch.setattr(stream, "CHUNK", 10)
    original, calls = stream.predict, []

    def interrupt(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(stream, "predict", interrupt)
    arguments = ["predict", world / "pruned", "--input", world / "eval.tsv", "--output", tmp_path / "o.tsv"]
    code, said = call(*arguments)
    assert code == 130
    assert "--resume" in said
    assert [path.name for path in tmp_path.iterdir()] == [".o.tsv.run"]
    assert call(*arguments)[0] == 2  # neither --force nor --resume
    code, said = call(*arguments, "--resume")
    assert code == 0
    read, written = (list(iter_rows(f)) for f in (world / "eval.tsv", tmp_path / "o.tsv"))
    assert [r.values["text"] for r in read] == [r.values["text"] for r in written]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".o.tsv.run", "o.tsv"]


def test_predict_reports_a_broken_line_and_keeps_the_rows_before(world, tmp_path, monkeypatch):
    from thresher.inference import stream

    monkeypatch.setattr(stream, "CHUNK", 2)
    (tmp_path / "in.tsv").write_text("text\tn\na good film\t1\na bad film\t2\nbroken\n")
    code, said = call(
        "predict", world / "pruned", "--input", tmp_path / "in.tsv", "--output", tmp_path / "out.tsv"
    )
    assert code == 2
    assert "in.tsv:4" in said.replace(" ", "")
    assert len(list(iter_rows(tmp_path / "out.tsv"))) == 2


def test_predict_does_not_write_over_a_column(world, tmp_path):
    (tmp_path / "in.tsv").write_text("text\tscore\na good film\t1\n")
    code, said = call(
        "predict", world / "pruned", "--input", tmp_path / "in.tsv", "--output", tmp_path / "o.tsv"
    )
    assert code == 2
    assert "'score'" in said


def test_thresholds_that_leave_the_prefix_alone_work_and_warn(world, tmp_path, caplog):
    model = PrunedModel.from_pretrained(world / "pruned")
    model.pruner.thresholds.fill_(1e6)
    model.save_pretrained(tmp_path / "bare")
    toy.tokenizer().save_pretrained(tmp_path / "bare")
    code, said = call(
        "predict", tmp_path / "bare", "--input", world / "eval.tsv", "--output", tmp_path / "o.tsv"
    )
    assert code == 0, said
    assert "Nothing but the prefix" in caplog.text


def test_empty_and_overlong_texts_are_handled(world, tmp_path, caplog):
    long = "film " * 300
    toy.write_jsonl(tmp_path / "in.jsonl", [{"text": ""}, {"text": long}, {"text": long}, {"text": "good"}])
    code, said = call(
        "predict", world / "pruned", "--input", tmp_path / "in.jsonl", "--output", tmp_path / "o.jsonl"
    )
    assert code == 0, said
    assert len(list(iter_rows(tmp_path / "o.jsonl"))) == 4
    warnings = [record.message for record in caplog.records if "truncated" in record.message]
    assert warnings == ["2 of 4 texts have more than 64 tokens: truncated."]
