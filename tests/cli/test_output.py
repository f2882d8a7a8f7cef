"""What is printed and where: names with brackets, full disks, terminals that lack characters."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests import toy
from tests.cli.calling import call, train_arguments
from thresher.data import iter_rows

LITTLE = {"--soft-epochs": 0, "--hard-epochs": 0.1, "--evaluations": 1}


def process(command: str, folder: Path, **environment: str) -> tuple[int, str]:
    """A shell command in which `thresher` is ours: its exit code and error stream."""
    program = f'thresher() {{ {sys.executable} -m thresher "$@"; }}; {command}'
    found = subprocess.run(
        ["bash", "-o", "pipefail", "-c", program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
        capture_output=True,
        text=True,
    )
    return found.returncode, found.stderr


@pytest.mark.parametrize("name", ["[run]", "[/old]:smile:"])
def test_names_are_printed_as_they_are(world, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    out = Path("o") / name
    code, said = call("prune", world / "base", *train_arguments(world, out, **LITTLE))
    assert code == 0, said
    assert f"Model and report: o/{name}" in said
    assert f"o/{name}: accuracy on" in said  # the table's title
    code, said = call("show", f"gone/{name}", "x")
    assert (code, f"'gone/{name}'" in said) == (2, True), said
    code, said = call("show", out, f"the film {name} was good")
    assert code == 0, said
    code, said = call("predict", out, "--input", world / "eval.tsv", "--output", Path(name) / "a.csv")
    assert f"40 rows in {name}/a.csv" in said


def test_labels_are_printed_as_they_are(tmp_path):
    base = toy.save_model(tmp_path / "base", names=("[/red]", ":smile:"))
    rows = [
        {"text": text, "label": ":smile:" if label == "pos" else "[/red]"} for text, label in toy.rows(40)
    ]
    data = toy.write_jsonl(tmp_path / "data.jsonl", rows)
    code, said = call(
        "finetune", base, "--train", data, "--text", "text", "--label", "label", "--epochs", 0.1
    )
    assert code == 2, said  # --out is missing: typer's own words
    options = ["--text", "text", "--label", "label", "--out", tmp_path / "out"]
    code, said = call("prune", base, "--train", data, *options, "--soft-epochs", 0, "--hard-epochs", 0.1)
    assert code == 0, said
    code, said = call("show", tmp_path / "out", "good film")
    assert ":smile:" in said or "[/red]" in said
    toy.write_jsonl(data, [{"text": "good", "label": "[/blue]"}])
    code, said = call("evaluate", tmp_path / "out", "--eval", data, "--label", "label")
    assert (code, "unknown label '[/blue]'; the model knows '[/red]', ':smile:'" in said) == (2, True), said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("thresher --help > /dev/full", "What is printed could not be written (No space left on device)"),
        ("thresher predict pruned --input eval.tsv --output full.tsv --force", "full.tsv"),
    ],
)
def test_a_full_disk_is_a_sentence(world, tmp_path, command, said):
    for name in ("pruned", "eval.tsv"):
        (tmp_path / name).symlink_to(world / name)
    (tmp_path / "full.tsv").symlink_to("/dev/full")
    code, errors = process(command, tmp_path)
    assert code == 2, errors
    assert said in errors
    assert "Traceback" not in errors
    assert "Exception" not in errors


def test_a_report_for_a_full_disk_is_a_sentence(world, tmp_path):
    (tmp_path / "full.json").symlink_to("/dev/full")
    options = ["--eval", world / "eval.tsv", "--no-speed", "--json", tmp_path / "full.json"]
    code, said = call("evaluate", world / "pruned", *options)
    assert code == 2, said
    assert "full.json" in said


@pytest.mark.parametrize("size", [20, 200])  # KiB: less than the weights, and than the optimizer's state
def test_a_disk_that_fills_in_training_is_a_sentence(world, tmp_path, size):
    """A limit on the size of files is what a full disk is, for safetensors and PyTorch alike."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size << 10, limits[1]))
    try:
        code, said = call("prune", world / "base", *train_arguments(world, tmp_path / "out", **LITTLE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2, said
    assert "cannot be written" in said


def test_a_text_in_another_encoding_is_a_sentence(world):
    code, errors = process("thresher show pruned $'caf\\xe9'", world)
    assert code == 2, errors
    assert "The text is not UTF-8" in errors


def test_a_reader_that_stops_is_no_error(world):
    code, errors = process("thresher show pruned 'the film' | true", world)
    assert code == 1, errors
    assert "Traceback" not in errors
    assert "Error" not in errors


def test_a_terminal_that_lacks_characters_shows_others(world, tmp_path):
    file = tmp_path / "shown"
    code, errors = process(f"thresher show pruned 'a ☕ film' > {file}", world, PYTHONIOENCODING="ascii")
    assert code == 0, errors
    assert "film" in file.read_text("ascii")


def test_a_report_that_cannot_be_written_says_where(world, tmp_path):
    (tmp_path / "taken").write_text("")  # a file where a folder is wanted
    code, said = call(
        "evaluate",
        world / "pruned",
        "--eval",
        world / "eval.tsv",
        "--no-speed",
        "--json",
        tmp_path / "taken" / "r.json",
    )
    assert code == 2, said
    assert "taken" in said


# What a user brings ------------------------------------------------------------------------------


def test_text_columns_by_awkward_names(world, tmp_path):
    file = tmp_path / "awkward.csv"
    file.write_text('" text","Title, body",,\n"good film","dull plot",,\n')
    for text in (["--text", "text"], ["--text", " text"], ["--text", "Title, body"]):
        code, said = call(
            "predict", world / "pruned", "--input", file, "--output", tmp_path / "o.jsonl", "--force", *text
        )
        assert code == 0, said
    code, said = call(
        "predict",
        world / "pruned",
        "--input",
        file,
        "--output",
        tmp_path / "o.jsonl",
        "--force",
        "--text",
        "text",
        "--text",
        "Title, body",
    )
    assert code == 0, said
    (row,) = iter_rows(tmp_path / "o.jsonl")
    assert row.values["Title, body"] == "dull plot"


def test_a_label_map_and_ids(world, tmp_path, caplog):
    rows = [(text, label) for text, label in toy.rows(40, seed=1)]
    found = []
    for name, spelled, options in (
        ("names", {"neg": "neg", "pos": "pos"}, []),
        ("ids", {"neg": "0", "pos": "1.0"}, []),
        ("case", {"neg": "NEG ", "pos": "Pos"}, []),
        ("map", {"neg": "1", "pos": "2"}, ["--label-map", "1=neg,2.0=pos"]),
        ("file", {"neg": "bad, dull", "pos": "good"}, ["--label-map", tmp_path / "map.json"]),
    ):
        (tmp_path / "map.json").write_text('{"bad, dull": "neg", "good": "pos"}')
        lines = ["text\tlabel", *(f"{text}\t{spelled[label]}" for text, label in rows)]
        (file := tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
        caplog.clear()
        code, said = call(
            "evaluate",
            world / "pruned",
            "--eval",
            file,
            "--label",
            "label",
            "--no-speed",
            "--json",
            tmp_path / "r.json",
            *options,
        )
        assert code == 0, said
        assert ("not called as the model's classes" in caplog.text) == (name in ("ids", "case"))
        found.append(said[said.index("accuracy") :].split("Report")[0])
    assert len(set(found)) == 1
    for bad in ("1", "=neg", "gone.json"):
        code, said = call(
            "evaluate", world / "pruned", "--eval", file, "--label", "label", "--label-map", bad, "--no-speed"
        )
        assert (code, "--label-map" in said) == (2, True), said


def multi_label(tmp_path: Path) -> Path:
    """A CSV file with several labels a text, one, or none."""
    words = ("good", "bad", "long")
    cells = [", ".join(word for word in words if word in text.split()) for text, _ in toy.rows(60)]
    lines = ["text,label", *(f'{text},"{cell}"' for (text, _), cell in zip(toy.rows(60), cells, strict=True))]
    (file := tmp_path / "tags.csv").write_text("\n".join(lines) + "\n")
    assert any(line.endswith('""') for line in lines)
    return file


def test_several_labels_or_none(tmp_path):
    base, file = toy.save_model(tmp_path / "encoder"), multi_label(tmp_path)
    options = ["--train", file, "--text", "text", "--label", "label"]
    code, said = call("finetune", base, *options, "--out", tmp_path / "base", "--epochs", 0.5)
    assert (
        code,
        "if an empty cell means none of the classes, fine-tune with --task multi-label" in said,
    ) == (2, True), said
    task = ["--task", "multi-label", "--epochs", 0.5]
    code, said = call("finetune", base, *options, *task, "--out", tmp_path / "base")
    assert code == 0, said
    little = ["--soft-epochs", 0.1, "--hard-epochs", 0.1]
    code, said = call("prune", tmp_path / "base", *options, *little, "--out", tmp_path / "pruned")
    assert code == 0, said
    code, said = call("evaluate", tmp_path / "pruned", "--eval", file, "--label", "label", "--no-speed")
    assert (code, "micro_f1" in said) == (0, True), said
    for suffix in ("jsonl", "csv", "parquet"):
        answers = tmp_path / f"answers.{suffix}"
        code, said = call("predict", tmp_path / "pruned", "--input", file, "--output", answers)
        assert code == 0, said
    for row in iter_rows(tmp_path / "answers.jsonl"):
        assert set(row.values["score"]) == {"good", "bad", "long"}
        assert row.values["prediction"] == [name for name, p in row.values["score"].items() if p > 0.5]


def test_vectors_of_labels_train_a_model_that_nobody_named(tmp_path):
    names = tuple(f"LABEL_{i}" for i in range(3))
    base = toy.save_model(tmp_path / "base", names, problem_type="multi_label_classification")
    rows = [
        {"text": text, "label": [i >> 2 & 1, i >> 1 & 1, i & 1]} for i, (text, _) in enumerate(toy.rows(80))
    ]
    file = toy.write_jsonl(tmp_path / "vectors.jsonl", rows)
    options = ["--train", file, "--text", "text", "--label", "label", "--out", tmp_path / "out"]
    code, said = call("prune", base, *options, "--soft-epochs", 0, "--hard-epochs", 0.1)
    assert code == 0, said
    code, said = call("evaluate", tmp_path / "out", "--eval", file, "--label", "label", "--no-speed")
    assert code == 0, said


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression", None])
def test_one_output(tmp_path, problem):
    """With binary cross-entropy it is a yes or no, else a score."""
    base = toy.save_model(tmp_path / "base", ("toxic",), problem_type=problem)
    rows = [{"text": text, "label": int(label == "neg")} for text, label in toy.rows(60)]
    file = toy.write_jsonl(tmp_path / "rows.jsonl", rows)
    options = ["--train", file, "--text", "text", "--label", "label", "--out", tmp_path / "out"]
    code, said = call("prune", base, *options, "--soft-epochs", 0.5, "--hard-epochs", 0.5)
    yes = problem == "multi_label_classification"
    assert (code, ("micro_f1" if yes else "pearson") in said) == (0, True), said
    code, said = call("predict", tmp_path / "out", "--input", file, "--output", tmp_path / "o.jsonl")
    assert code == 0, said
    for row in (row.values for row in iter_rows(tmp_path / "o.jsonl")):
        if yes:
            assert 0 < row["score"] < 1
            assert row["prediction"] == (["toxic"] if row["score"] > 0.5 else [])
        else:
            assert isinstance(row["prediction"], float)
