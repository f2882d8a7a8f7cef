"""What training minimises, against formulas written out with Python's numbers."""

from __future__ import annotations

from math import exp, log
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from thresher.objectives.distil_hidden import hidden_distance
from thresher.tasks import TASKS
from thresher.tasks.single_label import SingleLabel
from thresher.training.lengths import LengthWeights
from thresher.training.settings import TrainingSettings
from thresher.training.teacher import Teacher
from thresher.training.trainer import PruningTrainer
from thresher.training.work import objectives_of

from .cases import LENGTHS, build, soften
from .tiny import random_inputs

LOGITS = [[2.0, -1.0, 0.5], [0.0, 1.5, -3.0]]
BASE = [[1.0, 0.0, -2.0], [3.0, 1.0, 0.5]]


def softmax(row, temperature):
    weights = [exp(x / temperature) for x in row]
    return [weight / sum(weights) for weight in weights]


def divergence(row, base):
    """From base's classes to those given, both at temperature 2, times its square."""
    pairs = zip(softmax(base, 2.0), softmax(row, 2.0), strict=True)
    return 4 * sum(wanted * log(wanted / given) for wanted, given in pairs)


def entropy_of_labels(row, base):
    chances = [(1 / (1 + exp(-b)), 1 / (1 + exp(-x))) for b, x in zip(base, row, strict=True)]
    return -sum(w * log(g) + (1 - w) * log(1 - g) for w, g in chances) / len(row)


def squares(row, base):
    return sum((x - b) ** 2 for x, b in zip(row, base, strict=True)) / len(row)


@pytest.mark.parametrize(
    ("kind", "formula"),
    [("single-label", divergence), ("multi-label", entropy_of_labels), ("regression", squares)],
)
def test_distance_from_base(kind, formula):
    task = TASKS[kind](("a",) if kind == "regression" else ("a", "b", "c"))
    logits, base = ([row[:1] for row in rows] if kind == "regression" else rows for rows in (LOGITS, BASE))
    by_hand = sum(formula(*pair) for pair in zip(logits, base, strict=True)) / 2
    assert float(task.distance(torch.tensor(logits), torch.tensor(base))) == pytest.approx(by_hand)


def loss_of(pruned, given, **changes):
    """Of one batch."""
    settings = changes.pop("settings", TrainingSettings(precision="fp32", distill=0.0, distill_hidden=0.0))
    stage = "hard" if pruned.plan().soft is None else "soft"
    trainer = SimpleNamespace(
        work=SimpleNamespace(settings=settings),
        objectives=objectives_of(SingleLabel(("a", "b", "c")), settings, "labels" in given),
        teacher=None,
        lengths=LengthWeights(np.array(LENGTHS), None),
        controller=SimpleNamespace(penalty=lambda *_: 0.0, losses=[], stage=stage),
    )
    vars(trainer).update(changes)
    return float(PruningTrainer.compute_loss(trainer, pruned, dict(given)).detach())


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("labelled", [True, False])
def test_labels_and_base_share_the_loss(share, labelled):
    """And what a text's FLOPs count for follows from its length."""
    pruned = soften(build("bert", dtype=torch.float32), 0.3)
    inputs = random_inputs(pruned.model, LENGTHS)
    logits = pruned(**inputs).logits.detach()
    labels, base = torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(len(LENGTHS), 3)
    seen = []

    def penalty(trace, weights):
        seen.append(weights.tolist())
        return 5.0

    lengths = LengthWeights(np.array(LENGTHS), np.array([max(LENGTHS)]))
    given = inputs | ({"labels": labels} if labelled else {}) | {"base": base}
    settings = TrainingSettings(distill=share, distill_hidden=0.0, precision="fp32")
    controller = SimpleNamespace(penalty=penalty, losses=[], stage="soft")
    loss = loss_of(pruned, given, lengths=lengths, settings=settings, controller=controller)
    task = SingleLabel(("a", "b", "c"))
    far, wrong = float(task.distance(logits, base)), float(F.cross_entropy(logits, labels))
    share = share if labelled else 1.0
    assert loss == pytest.approx(share * far + (1 - share) * wrong + 5.0, rel=1e-5)
    assert seen == [lengths(np.array(LENGTHS)).tolist()]
    assert len(set(seen[0])) > 1


def test_hidden_states_are_learned_in_the_hard_stage_alone():
    pruned = build("bert", dtype=torch.float32).train()
    inputs = random_inputs(pruned.model, LENGTHS)
    given = inputs | {"labels": torch.tensor([0, 1, 2, 0, 1, 2])}
    settings = TrainingSettings(distill=0.0, distill_hidden=0.3, precision="fp32")
    base = build("bert", "none", dtype=torch.float32)
    with torch.no_grad():
        for parameter in base.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    teacher = SimpleNamespace(states=Teacher(base).states)
    with pruned.without_dropout():
        output = pruned(**inputs, output_hidden_states=True)
        far = float(hidden_distance(output.trace, output.hidden_states, teacher.states(inputs)).detach())
        alone = loss_of(pruned, given)
        assert far > 0
        both = loss_of(pruned, given, teacher=teacher, settings=settings)
        assert both == pytest.approx(alone + 0.3 * far, rel=1e-5)
        soften(pruned, 0.3)
        teacher.states = None  # who is not asked
        assert loss_of(pruned, given, teacher=teacher, settings=settings) == loss_of(pruned, given)
