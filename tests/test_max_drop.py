"""The cheapest point within a bound: which it is, what is said of it, and what the model then holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from tests.cases import build
from thresher.inference.predict import Predictions
from thresher.tasks.single_label import SingleLabel
from thresher.training.examples import Examples
from thresher.training.max_drop import choose

TEXTS = 400
TASK = SingleLabel(("no", "yes"))


def answers(wrong: int) -> np.ndarray:
    """Logits for labels that are all 1, of which the first so many are wrong."""
    logits = np.tile(np.array([[-1.0, 1.0]], dtype=np.float32), (TEXTS, 1))
    logits[:wrong] *= -1
    return logits


@pytest.fixture
def held_out():
    return Examples(_Rows(), [1] * TEXTS, answers(20))


class _Rows:
    """Stands for encoded texts, which nobody reads here."""

    def __len__(self):
        return TEXTS

    def select(self, index):
        return self


def ladder():
    """Rungs out of order; each threshold of a rung is the same."""
    pruned = build("bert", options={"budgets": [0.5, 0.7, 0.3]})
    pruned.pruner.table.data.copy_(torch.tensor([2.0, 1.0, 4.0])[:, None].expand(3, 4))
    return pruned


def measuring(pruned):
    """Wrong answers grow with the threshold in use: 20 at none, 8 more for each 1.0; FLOPs fall."""

    def measure():
        level = float(pruned.pruner.thresholds[0])
        flops = np.full(TEXTS, 1 - 0.2 * level)
        return Predictions(answers(20 + round(8 * level)), np.ones(TEXTS), flops, np.ones(TEXTS))

    return measure


@pytest.mark.parametrize("level", [0.5, 1.0, 1.5, 2.0, 4.0])
def test_goes_as_far_as_the_bound_allows(held_out, level):
    """Of which a standard error, of a binomial share, is kept clear; in steps of 1/16 of a rung."""
    lost = 0.02 * level
    bound = 100 * (lost + (lost * (1 - lost) / TEXTS) ** 0.5) + 0.1
    pruned = ladder()
    before = pruned.pruner.table.detach().clone()
    found = choose(pruned, TASK, held_out, measuring(pruned), bound)
    assert found.kept
    assert found.clear
    assert found.drop <= bound
    assert level - 1 / 16 <= pruned.pruner.thresholds[0] <= level + 1 / 16
    assert found.flops_ratio == pytest.approx(1 - 0.2 * float(pruned.pruner.thresholds[0]))
    # The rungs are held as before, behind the one that was found.
    assert pruned.budgets == (pytest.approx(found.flops_ratio, abs=1e-4), 0.5, 0.7, 0.3)
    assert torch.equal(pruned.pruner.table[1:], before)
    assert pruned.pruning.options["budgets"] == list(pruned.budgets)


def test_takes_what_loses_least_when_the_bound_cannot_be_kept(held_out):
    """Weights that were trained to run pruned are worse without thresholds than with mild ones."""
    pruned = ladder()
    wrong = {0.0: 40, 1.0: 28, 2.0: 30, 4.0: 60}

    def measure():
        level = float(pruned.pruner.thresholds[0])
        return Predictions(
            answers(wrong[level]), np.ones(TEXTS), np.full(TEXTS, 1 - 0.2 * level), np.ones(TEXTS)
        )

    found = choose(pruned, TASK, held_out, measure, 1.0)
    assert not found.kept
    assert not found.clear
    assert found.drop == pytest.approx(2.0)
    assert (pruned.pruner.thresholds == 1).all()
    assert len(found.tried) == 4
    found = choose(ladder(), TASK, held_out, measure, 2.1)  # within it, but by less than a standard error
    assert (found.kept, found.clear) == (True, False)


@pytest.mark.parametrize(("bound", "clear"), [(0.3, True), (0.2, False)])
def test_no_changed_decision_is_no_proof(held_out, bound, clear):
    """One in 400 is the least that can be told."""

    def measure():
        return Predictions(answers(20), np.ones(TEXTS), np.full(TEXTS, 0.5), np.ones(TEXTS))

    found = choose(ladder(), TASK, held_out, measure, bound)
    assert (found.drop, found.kept, found.clear) == (0.0, True, clear)


def test_a_rare_class_counts_where_asked(held_out):
    """One text in twenty is of a class that is never found again: 5 points of accuracy, half of macro F1."""
    held_out.labels = [0] * 20 + [1] * 380
    for metric, lost in (("accuracy", 5.0), ("macro_f1", 100 - 100 * (380 / 390) / 2)):
        task = TASK.measured_by(metric)
        found = choose(ladder(), task, held_out, lambda: Predictions(answers(0), *[np.ones(TEXTS)] * 3), 8.0)
        assert found.drop == pytest.approx(lost)
        assert found.kept == (metric == "accuracy")


def test_interval_is_of_pairs(held_out):
    """By hand: texts that both get wrong count for nothing, and 8 of 400 are a binomial share."""
    low, high = held_out.estimate_drop(TASK, answers(28)).interval
    spread = 1.96 * 100 * (0.02 * 0.98 / TEXTS) ** 0.5
    assert low == pytest.approx(2.0 - spread, abs=0.4)
    assert high == pytest.approx(2.0 + spread, abs=0.4)
    assert held_out.estimate_drop(TASK, answers(20)).interval == (0.0, 0.0)


def test_texts_may_count_for_others(held_out):
    """Those that stand for three of the kind in use: as if they were there three times."""
    held_out.weights = np.where(np.arange(TEXTS) < 24, 3.0, 1.0)
    assert held_out.drop(TASK, answers(28)) == pytest.approx(100 * (3 * 4 + 4) / (TEXTS + 48))
    low, high = held_out.estimate_drop(TASK, answers(28)).interval
    assert low < 100 * 16 / 448 < high
    held_out.labels = None
    assert held_out.drop(TASK, answers(28)) == pytest.approx(100 * 16 / 448)
    assert held_out.select(range(30)).weights.sum() == 3 * 24 + 6


def test_no_text_that_changes_does_not_say_that_none_can(held_out):
    """By the rule of three, three in 400 may."""
    assert held_out.estimate_drop(TASK, 0.5 * answers(20)).interval == pytest.approx((-0.75, 0.75))


def test_a_text_weighs_what_its_rows_weigh_on_average():
    rows = Dataset.from_dict({"input_ids": [[1]] * 5, "row": [0, 0, 1, 1, 1]})
    examples = Examples(rows, weights=np.array([1.0, 2.0, 3.0, 3.0, 6.0]))
    assert examples._text_weights().tolist() == [1.5, 4.0]
