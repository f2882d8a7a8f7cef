"""What training minimises, against formulas written out with Python's numbers."""

from __future__ import annotations

from math import exp, log
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from thresher.tasks import Task
from thresher.training.lengths import LengthWeights
from thresher.training.settings import TrainingSettings
from thresher.training.trainer import PruningTrainer, distillation_loss

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
    task = Task(kind, ("a",) if kind == "regression" else ("a", "b", "c"))
    logits, base = ([row[:1] for row in rows] if kind == "regression" else rows for rows in (LOGITS, BASE))
    by_hand = sum(formula(*pair) for pair in zip(logits, base, strict=True)) / 2
    assert float(distillation_loss(task, torch.tensor(logits), torch.tensor(base))) == pytest.approx(by_hand)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(("labelled", "taught"), [(True, True), (True, False), (False, True)])
def test_labels_and_base_share_the_loss(share, labelled, taught):
    """And what a text's FLOPs count for follows from its length."""
    pruned = soften(build("bert", dtype=torch.float32), 0.3)
    inputs = random_inputs(pruned.model, LENGTHS)
    logits = pruned(**inputs).logits.detach()
    labels, base = torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(len(LENGTHS), 3)
    task, seen = Task("single-label", ("a", "b", "c")), []

    def penalty(trace, weights):
        seen.append(weights.tolist())
        return 5.0

    lengths = LengthWeights(np.array(LENGTHS), np.array([max(LENGTHS)]))
    trainer = SimpleNamespace(
        pruned=pruned,
        teacher=None,
        task=task,
        lengths=lengths,
        settings=TrainingSettings(distill=share, precision="fp32"),
        controller=SimpleNamespace(penalty=penalty),
    )
    given = inputs | ({"labels": labels} if labelled else {}) | ({"base": base} if taught else {})
    loss = float(PruningTrainer.compute_loss(trainer, pruned, given).detach())
    far, wrong = float(distillation_loss(task, logits, base)), float(F.cross_entropy(logits, labels))
    share = 1.0 if not labelled else share if taught else 0.0
    assert loss == pytest.approx(share * far + (1 - share) * wrong + 5.0, rel=1e-5)
    assert seen == [lengths(np.array(LENGTHS)).tolist()]
    assert len(set(seen[0])) > 1
