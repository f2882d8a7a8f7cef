"""README's own commands and programs, in the order in which they stand, with the data that they name."""

from __future__ import annotations

import csv
import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import toy
from tests.cli.calling import call
from thresher import PrunedModel
from thresher.data import iter_rows, load_examples
from thresher.tasks import infer

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
SHORT = {"prune": ["--soft-epochs", "0.1", "--hard-epochs", "0.1", "--evaluations", "1"]}


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


def run(commands: str, monkeypatch) -> None:
    """Run each line as it stands, but train little; `bench` is only called."""
    asked: list[dict[str, Any]] = []

    def bench(*arguments: Any, **options: Any) -> None:
        asked.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("thresher.bench.run.bench", bench)
    for line in commands.strip().splitlines():
        program, command, *arguments = shlex.split(line)
        if program == "thresher":
            code, said = call(command, *arguments, *SHORT.get(command, []))
            assert code == (130 if command == "bench" else 0), f"{line}\n{said}"
    assert len(asked) == commands.count("thresher bench")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """What a reader of README has: a fine-tuned model, and three files."""
    monkeypatch.chdir(tmp_path)
    toy.save_model(tmp_path / "my-finetuned-model")
    for name, count in (("train.tsv", 1000), ("dev.tsv", 60)):
        toy.write_tsv(tmp_path / name, count, seed=count)
        (tmp_path / name).write_text((tmp_path / name).read_text().replace("text\t", "sentence\t", 1))
    with (tmp_path / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["sentence"], *([text] for text, _ in toy.rows(1900, seed=3))])
    toy.save_encoder(tmp_path / "encoder")
    toy.save_encoder(tmp_path / "all-MiniLM-L6-v2")
    for name, count in (("train", 60), ("dev", 20)):
        toy.write_tags(tmp_path / f"{name}.conll", toy.tagged(count, seed=count))
    toy.collection(tmp_path / "medquad")
    for name, count in (("train", 60), ("dev", 20)):
        questions = toy.as_squad(toy.asked(count, seed=count, impossible=0.3))
        (tmp_path / f"{name}-v2.0.json").write_text(json.dumps(questions))
    texts = [text for text, _ in toy.rows(120, seed=4)]
    pairs = [f"{a}\t{b}\t{i % 6}" for i, (a, b) in enumerate(pairwise(texts))]
    (tmp_path / "pairs.tsv").write_text("one\tother\tscore\n" + "\n".join(pairs) + "\n")
    return tmp_path


def test_commands_and_programs_run_as_they_stand(home, monkeypatch):
    for commands in blocks("bash"):
        run(commands, monkeypatch)
    assert len(list(iter_rows(home / "answers.csv"))) == 1900
    ladder = PrunedModel.from_pretrained("ladder")
    assert ladder.budgets == (0.7, 0.5, 0.3)
    first, script, server = blocks("python")
    found: dict[str, Any] = {}
    exec(first, found)
    assert found["out"].logits.shape == (2, 2)
    assert found["out"].trace.kept.shape == (4, 2)
    exec(script, found := {})
    text = found["classify"].tokenizer("a wonderful film", return_tensors="pt")
    with torch.inference_mode():
        wanted = found["model"](**text).logits.softmax(-1).max()
    (answer,) = found["classify"](["a wonderful film"])
    assert answer["score"] == pytest.approx(float(wanted), abs=1e-6)
    pruned, calls = found["encoder"][0].model, []
    run_it = pruned.run
    pruned.run = lambda *inputs, **how: calls.append(1) or run_it(*inputs, **how)
    found["encoder"].predict([("is it good?", "a wonderful film")])
    assert calls  # the pruned model answers, not stock transformers
    client = pytest.importorskip("fastapi.testclient")
    exec(server, found := {})
    said = client.TestClient(found["app"]).post("/classify", json=["a wonderful film", "dull"]).json()
    assert [set(answer) for answer in said] == [{"label", "score"}] * 2


def test_the_multi_label_file_is_read_as_it_says(tmp_path):
    (file := tmp_path / "data.csv").write_text(blocks("csv")[0])
    examples = load_examples(str(file), ["text"], "label", blank_labels=True)
    task = infer(examples["label"][:], "multi-label")
    assert task.names == ("account", "bug")
    assert task.encode_all(examples, "data.csv") == [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
