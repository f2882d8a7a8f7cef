"""The command line: its errors, and the commands end to end on a toy model."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)
from typer.testing import CliRunner

from tests import toy
from thresher import PrunedModel, PruningConfig, UserError, prune
from thresher.cli import app
from thresher.data import iter_rows


def call(*arguments: object) -> tuple[int, str]:
    """Exit code, and what was printed, on one line."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A base, a pruned model, and files."""
    folder = tmp_path_factory.mktemp("world")
    toy.write_tsv(folder / "train.tsv", 60)
    toy.write_tsv(folder / "eval.tsv", 40, seed=1)
    toy.save_model(folder / "base")
    from transformers import AutoModelForSequenceClassification

    model = prune(AutoModelForSequenceClassification.from_pretrained(folder / "base"), PruningConfig())
    model.pruner.thresholds.copy_(torch.tensor([0.5, 0.8, 0.9, 1.0]))
    model.metadata = {"text": ["text"], "base": "base", "base_quality": {"accuracy": 50.0}}
    model.save_pretrained(folder / "pruned")
    toy.tokenizer().save_pretrained(folder / "pruned")
    return folder


def train_arguments(world: Path, out: Path, **changes: object) -> list[object]:
    options = {"--train": world / "train.tsv", "--text": "text", "--label": "label", "--out": out} | changes
    return [part for option in options.items() for part in option]


def test_help_names_every_command():
    code, said = call("--help")
    assert code == 0
    for command in ("finetune", "prune", "evaluate", "bench", "predict", "show", "demo"):
        assert command in said
    assert re.fullmatch(
        r"thresher 0\.\d+\.\d+ \(attention: (native, \w+|plain, by torch)\)", call("--version")[1]
    )


@pytest.mark.parametrize("command", ["finetune", "prune"])
def test_training_options_reach_the_settings(command, monkeypatch):
    seen = []

    def stop(job, *rest):
        seen.append(job.settings)
        raise UserError("far enough")

    monkeypatch.setattr(f"thresher.training.recipes.{command}", stop)
    given = {"--metric": "macro_f1", "--evaluations": 3, "--warmup": 0.2, "--weight-decay": 0.3, "--seed": 7}
    code, said = call(command, "model", *train_arguments(Path(), Path("out"), **given))
    assert (code, "far enough" in said) == (2, True)
    named = {option.strip("-").replace("-", "_"): value for option, value in given.items()}
    assert {name: getattr(seen[0], name) for name in named} == named


# Errors: exit code 2, a message that says what to do, no traceback -----------------------------


@pytest.mark.parametrize("command", ["finetune", "prune"])
@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (None, {"--train": "nowhere.tsv"}, "nowhere.tsv"),
        (None, {"--text": "sentence"}, "text, label"),
        (None, {"--label": "stars"}, "text, label"),
        ("text\tlabel\ngood film\tpos\nbroken line\n", {}, ":3"),
        ("", {}, "empty"),
        ("text\tlabel\n", {}, "no rows"),
        (None, {"--max-length": 1000}, "allows 64"),
        (None, {"--max-length": 3}, "no room"),
    ],
    ids=[
        "missing-file",
        "text-column",
        "label-column",
        "broken-line",
        "empty-file",
        "header-only",
        "too-long",
        "too-short",
    ],
)
def test_bad_input(world, tmp_path, command, content, changes, message):
    if content is not None:
        (tmp_path / "bad.tsv").write_text(content)
        changes = {"--train": tmp_path / "bad.tsv"}
    code, said = call(command, world / "base", *train_arguments(world, tmp_path / "out", **changes))
    assert code == 2, said
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_label_never_seen(world, tmp_path):
    (tmp_path / "odd.tsv").write_text("text\tlabel\ngood film\tpos\ndull plot\tmeh\n" + 9 * "a\tneg\n")
    evaluated = call("evaluate", world / "pruned", "--eval", tmp_path / "odd.tsv", "--label", "label")
    trained = call(
        "prune", world / "base", *train_arguments(world, tmp_path / "o", **{"--train": tmp_path / "odd.tsv"})
    )
    for code, said in (evaluated, trained):
        assert code == 2
        assert "odd.tsv:3" in said.replace(" ", "")
        assert "meh" in said
        assert "'neg', 'pos'" in said


@pytest.mark.parametrize("kind", ["distilbert", "gpt2", "decoder"])
def test_unsupported_models(world, tmp_path, kind):
    if kind == "distilbert":
        config = DistilBertConfig(vocab_size=40, dim=32, n_layers=1, n_heads=2, hidden_dim=32)
        DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "model")
    elif kind == "gpt2":
        config = GPT2Config(vocab_size=40, n_embd=32, n_layer=1, n_head=2)
        GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "model")
    else:
        toy.save_model(tmp_path / "model", is_decoder=True)
    code, said = call("prune", tmp_path / "model", *train_arguments(world, tmp_path / "out"))
    assert code == 2
    assert "decoder" in said if kind == "decoder" else "Supported encoders: bert, roberta" in said


def test_no_model_there(world, tmp_path):
    code, said = call("prune", tmp_path / "nothing", *train_arguments(world, tmp_path / "out"))
    assert code == 2
    assert "There is no folder" in said
    code, said = call("show", world / "base", "good film")
    assert code == 2
    assert "thresher prune" in said


def test_folders_that_lack_a_part(world, tmp_path):
    for name, lacking in (("words", "tokenizer*"), ("weights", "model.safetensors")):
        shutil.copytree(world / "base", tmp_path / name)
        for file in (tmp_path / name).glob(lacking):
            file.unlink()
        code, said = call("prune", tmp_path / name, *train_arguments(world, tmp_path / "out"))
        assert code == 2, said
        assert ("tokenizer" if name == "words" else "weights") in said


def test_weights_that_were_copied_in_part(world, tmp_path):
    for name in ("base", "pruned"):
        shutil.copytree(world / name, tmp_path / name)
        weights = tmp_path / name / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    code, said = call("prune", tmp_path / "base", *train_arguments(world, tmp_path / "out"))
    assert code == 2, said
    assert "copy it again" in said
    code, said = call("show", tmp_path / "pruned", "good film")
    assert code == 2, said
    assert "model.safetensors is damaged" in said


def test_reports_go_where_they_can(world, tmp_path):
    (tmp_path / "file").touch()
    evaluation = ["evaluate", world / "pruned", "--eval", world / "eval.tsv"]
    for command in (
        [*evaluation, "--json", tmp_path],
        ["bench", *evaluation[1:], "--out", tmp_path / "file"],
    ):
        code, said = call(*command)
        assert code == 2, said
        assert "texts/s" not in said  # not after all the work


def test_an_output_folder_with_a_model_needs_force(world):
    code, said = call("finetune", world / "base", *train_arguments(world, world / "pruned"))
    assert code == 2
    assert "--force" in said
    for command in ("finetune", "prune"):
        code, said = call(command, world / "base", *train_arguments(world, world / "base"), "--force")
        assert (code, "is the model to start from" in said) == (2, True), said  # it would be lost


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--budget": 1.5}, "above 0, at most 1"),
        ({"--pruner": "magic"}, "threshold, topk, random, none"),
        ({"--option": "gates=paper"}, "gate, normalization"),
        ({"--option": "gate"}, "NAME=VALUE"),
        ({"--option": "gate=hazy"}, "exact, paper"),
        ({"--precision": "fp8"}, "auto, fp32 or bf16"),
        ({"--batch-size": 0}, "1 or more"),
        ({"--distill": 1.5}, "from 0 to 1"),
        ({"--seed": -1}, "--seed is -1"),
        ({"--learning-rate": -1}, "must not be negative"),
        ({"--threshold-learning-rate": -1}, "must not be negative"),
        ({"--warmup": 2}, "from 0, below 1"),
        ({"--learning-rate": "nan"}, "--learning-rate is nan"),
        ({"--soft-epochs": "inf"}, "--soft-epochs is inf"),
        ({"--seed": 2**70}, "must be below 2 ** 32"),
        ({"--pruner": "none", "--budget": 0.5}, "no --budget"),
        ({"--budget": 0.5, "--regularizer": 0.1}, "--budget and --regularizer exclude each other"),
        ({"--budget": 0.5, "--max-drop": "1%"}, "--budget and --max-drop exclude each other"),
        ({"--budget": "half"}, "write a share of the FLOPs"),
        ({"--budget": "0.5,0.5"}, "given twice"),
        ({"--max-drop": "some"}, "write points of quality, as 1%"),
        ({"--max-drop": "0%"}, "above 0"),
        ({"--max-drop": "0.01"}, "write 1% if you mean that, or 0.01%"),
        ({"--max-drop": "1%", "--pruner": "topk"}, "holds one budget"),
    ],
)
def test_bad_settings(world, tmp_path, changes, message):
    arguments = [a for a in train_arguments(world, tmp_path / "out", **changes) if a is not None]
    code, said = call("prune", world / "base", *arguments)
    assert code == 2, said
    assert message in said


def test_a_budget_out_of_reach(world, tmp_path):
    arguments = train_arguments(world, tmp_path / "out", **{"--pruner": "topk", "--budget": 0.1})
    code, said = call("prune", world / "base", *arguments)
    assert code == 2
    assert "out of reach" in said
    assert "dense_layers" in said
    arguments = train_arguments(world, tmp_path / "out", **{"--budget": 0.1, "--soft-epochs": 0})
    code, said = call("prune", world / "base", *arguments)  # and nothing stands in the way of another try
    assert "out of reach" in said


# Commands on a pruned model ---------------------------------------------------------------------


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


def test_a_bad_precision_leaves_an_output_alone(world, tmp_path):
    (tmp_path / "o.tsv").write_text("precious")
    arguments = ["predict", world / "pruned", "--input", world / "eval.tsv", "--output", tmp_path / "o.tsv"]
    assert call(*arguments, "--force", "--precision", "fp8")[0] == 2
    assert call(*arguments, "--force", "--engine", "tpu")[0] == 2
    arguments[3] = tmp_path / "absent.tsv"
    assert call(*arguments, "--force")[0] == 2
    assert (tmp_path / "o.tsv").read_text() == "precious"


def test_unknown_precision(world, tmp_path):
    code, said = call("evaluate", world / "pruned", "--eval", world / "eval.tsv", "--precision", "fp8")
    assert code == 2
    assert "fp32, bf16, int8" in said


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


def test_show(world):
    code, said = call("show", world / "pruned", "the film was very good")
    assert code == 0, said
    for word in ("film", "good", "layer", "FLOPs"):
        assert word in said


def test_a_ladder_runs_at_each_of_its_budgets(world, tmp_path):
    from transformers import AutoModelForSequenceClassification

    config = PruningConfig(options={"budgets": [0.4, 0.7]})
    model = prune(AutoModelForSequenceClassification.from_pretrained(world / "base"), config)
    model.pruner.table.data.copy_(torch.tensor([[1.0], [0.6]]).expand(2, 4))
    model.metadata = {"text": ["text"]}
    model.set_budget(0.7)
    model.save_pretrained(folder := tmp_path / "ladder")
    toy.tokenizer().save_pretrained(folder)
    model = PrunedModel.from_pretrained(folder)  # which starts at the first again
    texts = [row.values["text"] for row in iter_rows(world / "eval.tsv")]
    batch = toy.tokenizer()(texts, padding=True, return_tensors="pt")
    found = {}
    for budget, more in ((0.4, ()), (0.7, ("--at-budget", "0.7")), (0.4, ("--at-budget", "0.4"))):
        model.set_budget(budget)
        with torch.inference_mode():
            out = model(**batch)
        wanted = out.logits.softmax(1).amax(1)
        answers = tmp_path / f"{len(found)}.tsv"
        code, said = call("predict", folder, "--input", world / "eval.tsv", "--output", answers, *more)
        assert code == 0, said
        scores = [float(row.values["score"]) for row in iter_rows(answers)]
        assert scores == pytest.approx(wanted.tolist(), abs=2e-4)
        code, shown = call("show", folder, texts[0], *more)
        assert code == 0, shown
        found.setdefault(budget, set()).add((tuple(scores), shown))
    assert [len(some) for some in found.values()] == [1, 1]
    assert found[0.4].isdisjoint(found[0.7])
