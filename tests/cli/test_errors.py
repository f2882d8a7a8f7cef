"""Errors: exit code 2, a message that says what to do, no traceback."""

from __future__ import annotations

import shutil

import pytest
from transformers import (
    FNetConfig,
    FNetForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from tests import toy
from tests.cli.calling import call, train_arguments
from thresher.pruners import PRUNERS


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


@pytest.mark.parametrize("kind", ["fnet", "gpt2", "decoder"])
def test_unsupported_models(world, tmp_path, kind):
    if kind == "fnet":
        config = FNetConfig(vocab_size=40, hidden_size=32, num_hidden_layers=1, intermediate_size=32)
        FNetForSequenceClassification(config).save_pretrained(tmp_path / "model")
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
        ({"--pruner": "magic"}, ", ".join(PRUNERS)),
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
