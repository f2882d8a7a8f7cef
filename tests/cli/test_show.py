"""The view of survivors, and a model that runs at several budgets."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests import toy
from tests.cli.calling import call
from thresher import PrunedModel, PruningConfig, prune
from thresher.data import iter_rows


def test_show(world):
    code, said = call("show", world / "pruned", "the film was very good")
    assert code == 0, said
    for word in ("film", "good", "layer", "FLOPs"):
        assert word in said


def test_a_ladder_runs_at_each_of_its_budgets(world, tmp_path):
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
