"""Thresholds without training: the search on paper, and the command on a toy model."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from tests import toy
from thresher import PrunedModel, PruningConfig
from thresher.cli import app
from thresher.data import load_examples
from thresher.inference.evaluate import evaluate
from thresher.inference.predict import predict
from thresher.inputs.text import TextEncoder
from thresher.show.tables import calibration_table
from thresher.tasks import TASKS
from thresher.training import Data, Job, TrainingSettings
from thresher.training import calibrate as module
from thresher.training.calibrate import calibrate
from thresher.training.greedy import LEVELS, steps
from thresher.training.path import between
from thresher.training.probe import Doubtful, Point, Probe, pooled


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    toy.write_tsv(folder / "data.tsv", 600)
    toy.save_model(folder / "base")
    return folder


def additive(costs, savings):
    """Layers that do not meet: each level saves and costs what its layer says."""
    asked = []

    def probe(thresholds):
        level = torch.tensor([(0.0, *LEVELS).index(pytest.approx(t)) for t in thresholds.tolist()])
        asked.append(level)
        change = float((level * costs).sum())
        return Point(1 - float((level * savings).sum()), change, change)

    return probe, asked


def test_steps_take_what_costs_least_first():
    """Of three layers one costs nothing, one much, and one saves nothing at all."""
    probe, asked = additive(torch.tensor([0.5, 0.0, 0.1]), torch.tensor([0.03, 0.02, 0.0]))
    path = list(steps(probe, 3))
    taken = [thresholds for thresholds, _ in path]
    top = LEVELS[-1]
    assert taken[0].tolist() == [0.0, 0.0, 0.0]
    assert taken[len(LEVELS)].tolist() == pytest.approx([0.0, top, 0.0])
    assert taken[-1].tolist() == pytest.approx([top, top, 0.0])
    assert len(taken) == 1 + 2 * len(LEVELS)
    for before, after in itertools.pairwise(path):
        assert (after[0] >= before[0]).all()
        assert after[1].flops_ratio < before[1].flops_ratio
    assert len(asked) < 4 * len(LEVELS) + 4  # what does not look best is not measured again


def test_a_level_that_saves_nothing_is_joined_to_the_next():
    def probe(thresholds):
        high = float(thresholds[0]) >= 1
        return Point(0.7 if high else 1.0, float(high), 0.0)

    path = list(steps(probe, 1))
    assert [float(thresholds[0]) for thresholds, _ in path] == [0.0, 1.0]


def test_between_the_points_of_a_path():
    path = [torch.tensor([0.0, 0.0]), torch.tensor([0.2, 0.0]), torch.tensor([0.2, 1.0])]
    for place, wanted in [(0, [0, 0]), (0.5, [0.1, 0]), (1, [0.2, 0]), (1.25, [0.2, 0.25]), (2, [0.2, 1])]:
        assert between(path, place).tolist() == pytest.approx(wanted)


def measured(world, kind, texts):
    """What a `Probe` is made of, with so many texts."""
    labels = 1 if kind == "regression" else 3
    dense = AutoModelForSequenceClassification.from_pretrained(
        world / "base", num_labels=labels, ignore_mismatched_sizes=True
    )
    encoder = TextEncoder(AutoTokenizer.from_pretrained(world / "base"), 32)
    rows = encoder.encode_columns(load_examples(str(world / "data.tsv"), ["text"]).select(range(texts)))
    task = TASKS[kind](tuple(map(str, range(labels))))
    return PrunedModel(dense, PruningConfig("threshold")), encoder, task, rows


@pytest.mark.parametrize("kind", ["single-label", "multi-label", "regression"])
def test_probe_measures_change_against_base(world, kind):
    probe = Probe(*measured(world, kind, 40))
    none = probe(torch.zeros(4))
    assert none.flops_ratio == 1
    assert none.divergence == pytest.approx(0, abs=1e-6)
    assert none.change == pytest.approx(0, abs=1e-9)
    much = probe(torch.full((4,), 1.2))
    assert much.flops_ratio < 0.9
    assert much.divergence > 1e-5
    logits, base = probe.found.logits, probe.base
    if kind == "regression":
        wanted = 1 - np.corrcoef(logits[:, 0], base[:, 0])[0, 1]
    elif kind == "single-label":
        wanted = sum(a.argmax() != b.argmax() for a, b in zip(logits, base, strict=True)) / 40
    else:
        wanted = sum((a > 0) != (b > 0) for a, b in zip(logits.flat, base.flat, strict=True)) / 120
    assert much.change == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("kind", ["single-label", "multi-label", "regression"])
def test_few_texts_tell_what_changes_of_all(world, kind):
    """A mild pruning, of which those texts change on which the model is unsure: seen from some of them."""
    torch.manual_seed(3)  # of the labels' weights
    given = measured(world, kind, 600)
    torch.manual_seed(3)
    probe = Probe(*measured(world, kind, 600))
    few = Doubtful(*given, max_change=0.02)
    mild = torch.tensor([0.0, 0.0, 0.8, 0.8])
    wanted = probe(mild).change
    assert wanted > 0
    assert few.change(torch.zeros(4)) == pytest.approx(0, abs=1e-9)
    if kind == "regression":
        assert len(few.base) == 600
        assert few.change(mild) == pytest.approx(wanted)
    else:
        assert len(few.base) == (540 if kind == "multi-label" else 200)
        assert few.decisions == 600 * (3 if kind == "multi-label" else 1)
        assert few.change(mild) == pytest.approx(wanted, abs=3 * few.doubt)
        found = predict(few.model, few.encoder, few.rows).logits + np.array(few.offset)
        assert found.mean(0) == pytest.approx(few.base.mean(0), abs=1e-6)


def test_pooled_drifts_tell_the_same_as_counts_and_more_surely():
    """Drifts grow with the margin, so that only those of like margin tell."""
    draw, found, counts = np.random.default_rng(0), [], []
    for _ in range(400):
        margin = draw.exponential(size=1000)
        drift = draw.normal(0, 0.02 + 0.1 * margin)
        counts.append((drift > margin).mean())
        found.append(pooled(margin, drift).mean())
    assert np.mean(found) == pytest.approx(np.mean(counts), rel=0.05)
    assert np.std(found) < 0.85 * np.std(counts)


@pytest.mark.parametrize("kind", ["single-label", "multi-label", "regression"])
def test_doubt_is_the_spread_over_samples(kind):
    """Of texts whose decisions, where they have several, change together."""
    task, texts, draw = TASKS[kind](("a", "b", "c")), 400, np.random.default_rng(0)
    if kind == "regression":
        truth = draw.normal(size=(2000, texts))
        noisy = truth + 0.2 * draw.normal(size=truth.shape)
        changes = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(truth, noisy, strict=True)]
    else:
        changes = (draw.random((2000, texts)) < 0.03).mean(1)
    assert task.doubt(float(np.mean(changes)), texts) == pytest.approx(np.std(changes), rel=0.1)


def job(world, out, **more) -> Job:
    return Job(str(world / "base"), Data(str(world / "data.tsv"), ["text"]), out, TrainingSettings(), **more)


def test_calibrate_keeps_its_bound_and_writes_a_model(world, tmp_path):
    arguments = f"calibrate {world}/base --data {world}/data.tsv --text text --max-change 5% --out"
    result = CliRunner().invoke(app, [*arguments.split(), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["change"] <= report["max_change"] == 0.05
    assert (tmp_path / "out" / "kept.png").exists()
    data = report["data"]
    assert data["searched_on"] + data["chosen_on"] + data["checked_on"] == 600
    model = PrunedModel.from_pretrained(tmp_path / "out")
    assert model.pruner.thresholds.tolist() == pytest.approx(report["thresholds"])
    assert max(report["thresholds"]) > 0
    assert (model.pruner.weight[:-1] != 0).any(1).all()  # fitted to base's gradients
    base = AutoModelForSequenceClassification.from_pretrained(world / "base")
    for name, tensor in base.state_dict().items():  # nothing was trained
        assert torch.equal(tensor, model.model.state_dict()[name]), name
    # The texts that it was checked on come out as the report says.
    order = np.random.default_rng(42).permutation(600)[-data["checked_on"] :]
    texts = load_examples(str(world / "data.tsv"), ["text"]).select(order)["text"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = tokenizer(texts[:], padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model(**batch)
        changed = (found.logits.argmax(1) != base(**batch).logits.argmax(1)).float().mean()
    assert float(changed) == pytest.approx(report["change"], abs=0.005)  # one text may be within rounding
    ratio = found.trace.flops.sum() / found.trace.dense_flops.sum()
    assert float(ratio) == pytest.approx(report["flops_ratio"], abs=1e-3)

    again = CliRunner().invoke(app, [*arguments.split(), str(tmp_path / "out")])
    assert again.exit_code == 2
    assert "--force" in again.output
    evaluated = CliRunner().invoke(app, ["evaluate", str(tmp_path / "out"), "--eval", f"{world}/data.tsv"])
    assert evaluated.exit_code == 0, evaluated.output
    assert "None" not in evaluated.output


def test_a_check_that_fails_steps_back(world, tmp_path, monkeypatch):
    """Where the texts that choose are kinder than those that check: here the former allow anything. What is
    checked, and what is saved, has the offset of its own thresholds."""
    measured = Probe.__call__

    def offset_of(thresholds):
        return pytest.approx([float(thresholds.sum()), 0.0])

    def kind(self, thresholds):
        point = measured(self, thresholds)
        if self.model.precision != "fp32":
            return replace(point, change=0.0)
        assert self.model.pruning.offset == offset_of(thresholds)
        return replace(point, change=1 - point.flops_ratio)

    def chooses_all(self, thresholds):
        self.offset = [float(thresholds.sum()), 0.0]
        return 0.0

    monkeypatch.setattr(Probe, "__call__", kind)
    monkeypatch.setattr(Doubtful, "change", chooses_all)
    monkeypatch.setattr(module.TrainingSettings, "autocast", torch.bfloat16)
    report = calibrate(job(world, tmp_path / "out"), max_change=0.4)
    assert 0 < report.stepped_back < 8
    assert 0.3 < report.change <= 0.4
    assert "step back" in calibration_table(report).title
    model = PrunedModel.from_pretrained(tmp_path / "out")
    assert model.pruning.offset == report.pruning["offset"] == offset_of(model.pruner.thresholds)


def straight(probe, layers):
    """Thresholds that rise in all layers at once, to 1."""
    for step in range(11):
        yield torch.full((layers,), step / 10), Point(1 - step / 20, 0.0, 0.0)


def test_a_bound_that_nothing_keeps_is_given_up_soon(world, tmp_path, monkeypatch):
    measured, asked = Probe.__call__, []

    def harsh(self, thresholds):
        asked.append(float(thresholds.sum()))
        return replace(measured(self, thresholds), change=0.0501 if asked[-1] else 0.0)

    monkeypatch.setattr(Doubtful, "change", lambda self, thresholds: 0.0)
    monkeypatch.setattr(module, "steps", straight)
    monkeypatch.setattr(Probe, "__call__", harsh)
    report = calibrate(job(world, tmp_path / "out"), max_change=0.05)
    assert report.change == report.thresholds[0] == 0
    assert 2 < len(asked) < 9


def test_as_far_is_gone_as_keeps_clear_of_the_bound(world, tmp_path, monkeypatch):
    """By half a standard error, or every other check would fail."""
    measured = Probe.__call__
    monkeypatch.setattr(Doubtful, "change", lambda self, thresholds: float(thresholds[0]) / 10)
    monkeypatch.setattr(module, "steps", straight)
    monkeypatch.setattr(Probe, "__call__", lambda self, some: replace(measured(self, some), change=0.0))
    report = calibrate(job(world, tmp_path / "out"), max_change=0.05)
    error = 0.8 * (0.05 * 0.95 / report.data.chosen_on) ** 0.5
    assert 0 <= 10 * (0.05 - error / 2) - report.thresholds[0] < 0.02


@pytest.mark.parametrize(
    ("problem", "names", "text"),
    [
        ("regression", ("score",), ["text"]),
        ("multi_label_classification", ("a", "b", "c"), ["text"]),
        ("single_label_classification", ("neg", "pos"), ["text", "text"]),
    ],
)
def test_any_task_is_calibrated(world, tmp_path, problem, names, text):
    toy.save_model(tmp_path / "base", names, problem_type=problem)
    asked = replace(job(world, tmp_path / "out"), model=str(tmp_path / "base"))
    asked.data.text = text
    report = calibrate(asked, max_change=0.05)
    assert report.change <= 0.05
    assert report.flops_ratio < 0.95
    evaluated = evaluate(str(tmp_path / "out"), str(world / "data.tsv"), [], None, speed=False)
    assert evaluated.flops_ratio == pytest.approx(report.flops_ratio, abs=0.05)
    assert evaluated.quality["pruned"]["agreement"] > 90


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max-change", "0"], "above 0, below 1"),
        (["--max-change", "1.5"], "above 0, below 1"),
        (["--max-change", "a lot"], "write a share"),
        (["--max-change", "0.1%"], "600 rows, too few"),
        (["--text", "nothere"], "nothere"),
    ],
)
def test_bad_input(world, tmp_path, more, message):
    arguments = [*f"calibrate {world}/base --data {world}/data.tsv --text text".split(), *more]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()
