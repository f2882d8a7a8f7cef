"""What a precision costs, as evaluate reports it."""

from __future__ import annotations

import logging

import numpy as np
import torch

from tests import tiny
from thresher import PruningConfig, prune
from thresher.inference.evaluate import _cost
from thresher.inference.predict import Predictions


def predictions(*depths: list[int]) -> Predictions:
    lengths = np.array([len(d) for d in depths])
    return Predictions(np.zeros((len(depths), 2)), lengths, depths=[np.array(d) for d in depths])


def test_counts_tokens_that_are_dropped_elsewhere(caplog):
    exact, found = predictions([4, 2, 0, 1], [4, 4]), predictions([4, 2, 1, 0], [4, 4])
    quality = {"pruned, fp32": {"accuracy": 90.0}, "pruned": {"accuracy": 89.6}}
    with caplog.at_level(logging.WARNING):
        assert _cost(exact, found, quality) == {"cost": 90.0 - 89.6, "tokens_dropped_elsewhere": 2 / 6}
        assert not caplog.records
        quality["pruned"]["accuracy"] = 89.0
        _cost(exact, exact, quality)
    assert "costs 1.00 points of accuracy" in caplog.text


def test_depths_say_what_positions_say():
    model = prune(tiny.FAMILIES["bert"]().eval(), PruningConfig())
    model.pruner.thresholds.copy_(torch.tensor([0.5, 0.0, 0.8, 1.0]))
    lengths = [12, 1, 20]
    trace = model(**tiny.random_inputs(model.model, lengths)).trace
    for row, (length, depths) in enumerate(zip(lengths, trace.depths, strict=True)):
        alive = trace.positions(row)
        assert depths.tolist() == [sum(p in layer for layer in alive) for p in range(length)]
    assert min(int(depths.min()) for depths in trace.depths) < 4
