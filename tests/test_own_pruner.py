"""A learned pruner of somebody else's, written by the recipe of CONTRIBUTING.md, goes all the way."""

import pytest
import torch
from torch import nn

from tests import toy
from thresher import PrunedModel, PruningConfig
from thresher.inference.evaluate import evaluate
from thresher.pruners import PRUNERS, Decision, Ladder
from thresher.training import Data, Job, TrainingSettings, prune
from thresher.training.calibrate import calibrate


class Predictor(Ladder):
    """Attention received, times what two layers make of the hidden state."""

    def __init__(self, layers, dim, width=8, budgets=()):
        super().__init__(layers, dim, budgets)
        generator = torch.Generator().manual_seed(0)
        self.inner = nn.Parameter(torch.randn(layers, dim, width, generator=generator) * dim**-0.5)
        self.outer = nn.Parameter(torch.zeros(layers, width))

    def forward(self, layer, plan):
        if self.open(layer.index, plan):
            return Decision()
        inside = torch.tanh(layer.hidden.float() @ self.inner[layer.index])
        score = layer.importance * (inside @ self.outer[layer.index]).clamp(-8, 8).exp()
        score = score / layer.packed.mean(score[:, None])[layer.packed.sequence, 0]
        return self.decide(score, layer.index, plan)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(PRUNERS, "predictor", Predictor)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    toy.write_tsv(folder / "train.tsv", 400)
    toy.save_model(folder / "base")
    return folder


def job(world, out, **settings):
    data = Data(str(world / "train.tsv"), ["text"])
    return Job(str(world / "base"), data, out, TrainingSettings(precision="fp32", **settings))


def test_it_trains_is_steered_and_is_saved_as_a_ladder(world, tmp_path):
    asked = job(world, tmp_path / "out", budget=[0.7, 0.5], soft_epochs=2.0, hard_epochs=2.0)
    prune(asked, PruningConfig("predictor", {"width": 6}))
    model = PrunedModel.from_pretrained(tmp_path / "out")
    assert isinstance(model.pruner, Predictor)
    assert model.pruner.inner.shape[2] == 6
    assert (model.pruner.outer.abs().amax(1)[:-1] > 1e-4).all()  # it has learned, where there is a choice
    assert model.pruner.table.shape == (2, 4)
    assert model.budgets == (0.7, 0.5)
    for budget in model.budgets:
        found = evaluate(
            str(tmp_path / "out"), str(world / "train.tsv"), [], None, budget=budget, speed=False
        )
        assert found.flops_ratio == pytest.approx(budget, abs=0.06)


def test_a_drop_is_kept(world, tmp_path):
    prune(
        job(world, tmp_path / "out", max_drop=20.0, soft_epochs=0.5, hard_epochs=0.5),
        PruningConfig("predictor"),
    )
    model = PrunedModel.from_pretrained(tmp_path / "out")
    assert len(model.budgets) >= 2
    assert model.budgets[0] < 0.9


def test_it_is_calibrated(world, tmp_path):
    report = calibrate(job(world, tmp_path / "out"), max_change=0.05, pruning=PruningConfig("predictor"))
    assert report.change <= 0.05
    model = PrunedModel.from_pretrained(tmp_path / "out")
    assert model.pruner.thresholds.tolist() == pytest.approx(report.thresholds)
    assert max(report.thresholds) > 0
