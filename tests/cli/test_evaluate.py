"""Quality of a pruned model: precisions, engines, lengths."""

from __future__ import annotations

import json

import pytest

from tests.cli.calling import call
from thresher.data import iter_rows


def test_evaluate(world, tmp_path):
    file = tmp_path / "report.json"
    code, said = call(
        "evaluate", world / "pruned", "--eval", world / "eval.tsv", "--label", "label", "--json", file
    )
    assert code == 0, said
    report = json.loads(file.read_text())
    assert report["quality"]["base"] == {"accuracy": 50.0}
    assert 0 < report["flops_ratio"] < 1
    assert len(report["kept_share"]) == 4
    assert report["speed"]["thresher"]["texts_per_second"] > 0
    assert {"texts/s", "dense", "pruned"} <= set(said.split())
    code, said = call(
        "evaluate", world / "pruned", "--eval", world / "eval.tsv", "--no-speed", "--json", file
    )
    assert "agreement" in json.loads(file.read_text())["quality"]["pruned"]


@pytest.mark.parametrize(
    ("precision", "engine"), [("bf16", "torch"), ("int8", "torch"), ("int8", "openvino")]
)
def test_another_precision(world, tmp_path, precision, engine):
    if engine == "openvino":
        pytest.importorskip("nncf")
    how = ["--precision", precision, "--engine", engine]
    file, output = tmp_path / "report.json", tmp_path / "o.tsv"
    code, said = call("evaluate", world / "pruned", "--eval", world / "eval.tsv", "--json", file, *how)
    assert code == 0, said
    report = json.loads(file.read_text())
    assert set(report["quality"]) == {"base", "dense", "pruned", "pruned, fp32"}
    settings = report["settings"]
    assert (settings["precision"], settings["engine"]) == (precision, engine)
    exact, found = (report["quality"][name]["agreement"] for name in ("pruned, fp32", "pruned"))
    assert settings["cost"] == pytest.approx(exact - found)
    assert 0 <= settings["tokens_dropped_elsewhere"] < 0.2
    assert report["speed"]["dtype"] == ("bfloat16" if precision == "bf16" else "float32")
    assert report["speed"]["precision"] == precision
    code, said = call("predict", world / "pruned", "--input", world / "eval.tsv", "--output", output, *how)
    assert code == 0, said
    assert len(list(iter_rows(output))) == 40


def test_texts_are_cut_where_asked(world, tmp_path):
    """At 5 tokens, [CLS] and [SEP] among them, the first three words are left."""
    long, short = world / "eval.tsv", tmp_path / "short.tsv"
    rows = [row.values for row in iter_rows(long)]
    with short.open("w") as file:
        file.write("text\tlabel\n")
        file.writelines(f"{' '.join(row['text'].split()[:3])}\t{row['label']}\n" for row in rows)
    scores = []
    for source, options in ((short, ()), (long, ("--max-length", 5)), (long, ())):
        output = tmp_path / f"{len(scores)}.tsv"
        code, said = call("predict", world / "pruned", "--input", source, "--output", output, *options)
        assert code == 0, said
        scores.append([row.values["score"] for row in iter_rows(output)])
    assert scores[0] == scores[1] != scores[2]
    file = tmp_path / "report.json"
    code, said = call(
        "evaluate", world / "pruned", "--eval", long, "--max-length", 5, "--no-speed", "--json", file
    )
    assert code == 0, said
    data = json.loads(file.read_text())["data"]
    assert (data["max_length"], data["trained_length"], data["truncated"]) == (5, 64, 40)


def test_unknown_precision(world, tmp_path):
    code, said = call("evaluate", world / "pruned", "--eval", world / "eval.tsv", "--precision", "fp8")
    assert code == 2
    assert "fp32, bf16, int8" in said
