"""Numbers that are not finite: named wherever a model is asked, never written or scored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import toy
from tests.cli.calling import call, train_arguments
from tests.cli.conftest import world  # noqa: F401 - a fixture


def spoil(source: Path, folder: Path, weight: str, value: float) -> Path:
    shutil.copytree(source, folder)
    tensors = load_file(file := folder / "model.safetensors")
    tensors[weight].view(-1)[1] = value
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("command", "weight", "value"),
    [
        ("prune", "bert.encoder.layer.1.attention.self.query.weight", float("nan")),
        ("prune, labels alone", "classifier.weight", float("-inf")),
        ("finetune", "bert.encoder.layer.2.output.dense.bias", float("inf")),
        ("calibrate", "bert.encoder.layer.1.attention.self.query.weight", float("nan")),
    ],
)
def test_a_bad_weight_of_the_base_is_named(world, tmp_path, command, weight, value):  # noqa: F811
    base = spoil(world / "base", tmp_path / "base", weight, value)
    if command == "calibrate":
        data = toy.write_tsv(tmp_path / "data.tsv", 400)
        code, said = call(
            "calibrate",
            base,
            "--data",
            data,
            "--text",
            "text",
            "--out",
            tmp_path / "out",
            "--max-change",
            "5%",
        )
    else:
        more = {"--distill": 0, "--distill-hidden": 0} if "labels" in command else {}
        code, said = call(command.split(",")[0], base, *train_arguments(world, tmp_path / "out", **more))
    assert code == 2, said
    assert f"weight '{weight}' holds NaN or infinity" in said
    assert "learning rate" not in said


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_bad_weight_of_a_pruned_model_is_named(world, tmp_path, precision):  # noqa: F811
    weight = "bert.encoder.layer.1.attention.output.LayerNorm.weight"
    folder = spoil(world / "pruned", tmp_path / "pruned", weight, float("nan"))
    how = ("--precision", precision)
    code, said = call("evaluate", folder, "--eval", world / "eval.tsv", "--label", "label", *how)
    assert (code, f"'{weight}'" in said) == (2, True), said
    output = tmp_path / "o.tsv"
    code, said = call("predict", folder, "--input", world / "eval.tsv", "--output", output, *how)
    assert (code, f"'{weight}'" in said) == (2, True), said
    assert not output.exists() or "nan" not in output.read_text()


def test_show_and_bench_say_it_too(world, tmp_path):  # noqa: F811
    folder = spoil(world / "pruned", tmp_path / "pruned", "classifier.bias", float("nan"))
    for arguments in (("show", folder, "good film"), ("bench", folder, "--eval", world / "eval.tsv")):
        code, said = call(*arguments)
        assert (code, "'classifier.bias'" in said) == (2, True), said


def test_answers_that_overflow_are_told_from_bad_weights(world, tmp_path):  # noqa: F811
    shutil.copytree(world / "pruned", folder := tmp_path / "pruned")
    tensors = load_file(file := folder / "model.safetensors")
    tensors["classifier.weight"] = torch.full_like(tensors["classifier.weight"], 3e38)
    save_file(tensors, file, metadata={"format": "pt"})
    code, said = call("evaluate", folder, "--eval", world / "eval.tsv", "--no-speed")
    assert code == 2, said
    assert "though all weights are" in said
