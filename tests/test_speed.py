"""Speed side by side: three runners in turn, and the ratios that say what packing gives and what pruning."""

from __future__ import annotations

import datasets
import pytest
from transformers import AutoModelForSequenceClassification

from tests import toy
from thresher import PruningConfig, prune
from thresher.inference import speed
from thresher.inputs.text import TextEncoder
from thresher.plan import is_dense
from thresher.reports import Rates


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = toy.save_model(tmp_path_factory.mktemp("speed") / "base")
    model = prune(AutoModelForSequenceClassification.from_pretrained(folder), PruningConfig())
    model.pruner.thresholds.fill_(0.8)
    return model, TextEncoder(toy.tokenizer(), 64), [text for text, _ in toy.rows(12)]


def test_packing_and_pruning_are_timed_apart(world, monkeypatch):
    """By a clock that each runner moves on: eight seconds by transformers', four packed and one pruned."""
    model, encoder, texts = world
    seen, clock = [], [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])

    def run(_, **rows):
        seen.append(("dense" if is_dense(model) else "pruned", rows["input_ids"].shape))
        clock[0] += 4 if is_dense(model) else 1

    def transformers(**rows):
        seen.append(("transformers", rows["input_ids"].shape))
        clock[0] += 8

    monkeypatch.setattr(type(model), "forward", run)
    dense = AutoModelForSequenceClassification.from_config(model.config)
    monkeypatch.setattr(dense, "forward", transformers)
    advanced = []
    found = speed.speeds(
        model,
        dense,
        encoder,
        datasets.Dataset.from_dict({"text": texts}),
        batch=12,
        repeats=3,
        advance=advanced.append,
    )
    assert [name for name, _ in seen] == ["transformers", "dense", "pruned"] * 4
    assert len({shape for _, shape in seen}) == 1
    assert not is_dense(model)
    assert sum(advanced) == len(advanced) == speed.calls(3) == 12
    assert speed.calls() == 18
    assert {type(rates) for rates in (found.packed, found.transformers, found.thresher)} == {Rates}
    assert (found.ratio, found.packed_ratio, found.pruning_ratio) == (8, 2, 4)
    assert found.packed.texts_per_second == 12 / 4


def test_ratios_are_of_neighbours(world):
    seconds = {"transformers": [8.0, 16.0, 4.0], "packed": [4.0, 4.0, 2.0], "thresher": [2.0, 1.0, 2.0]}
    assert speed._ratios(seconds) == {
        "ratio": 4.0,
        "ratio_spread": [2.0, 16.0],
        "packed_ratio": 2.0,
        "pruning_ratio": 2.0,
    }


def test_on_a_real_toy(world):
    model, encoder, texts = world
    examples = datasets.Dataset.from_dict({"text": texts})
    found = speed.speeds(model, model.model, encoder, examples, repeats=1)
    for name in speed.ENGINES:
        rates = getattr(found, name)
        assert rates.texts_per_second > rates.with_tokenizing > 0
