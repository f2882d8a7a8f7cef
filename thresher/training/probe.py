"""What thresholds do to some texts: FLOPs, divergence from the base model, and changed decisions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from thresher.inference.predict import Predictions, predict
from thresher.inputs.rows import first_rows, has_parts, whole_texts
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.tasks import Task, answers_of

# Times as many texts as may change are measured, to choose: those of which the base model is least sure.
NEAR = 15
LEAST = 200  # texts, of those
WINDOW = 51  # decisions of like margin whose drifts are pooled
POOLED = 0.8  # of a plain count's standard error is left where drifts are pooled


@dataclass(frozen=True)
class Point:
    """What thresholds do to some texts.

    Attributes
    ----------
    flops_ratio : float
    divergence : float
        Mean over the texts of how far outputs are from those of the base model: smooth, 0 where equal.
    change : float
        Share of decisions that are not the base model's; for a score, 1 less Pearson's r.
    """

    flops_ratio: float
    divergence: float
    change: float


class Probe:
    """Some texts and the base model's outputs for them: measures what thresholds do.

    Parameters
    ----------
    model : PrunedModel
        With a threshold for each layer, which is moved.
    encoder : TextEncoder
    task : Task
    rows : dict of lists
        Encoded texts.
    """

    def __init__(self, model: PrunedModel, encoder: TextEncoder, task: Task, rows: dict[str, list]):
        self.model, self.encoder, self.task, self.rows = model, encoder, task, rows
        self.texts = len(first_rows(rows)) if has_parts(rows) else len(rows["input_ids"])
        with model.dense():
            self.base = predict(model, encoder, rows).logits
        self.found: Predictions | None = None

    def __call__(self, thresholds: Tensor) -> Point:
        """Measure thresholds ``[layers]``."""
        set_dials(self.model, thresholds)
        self.found = predict(self.model, self.encoder, self.rows)
        both = [whole_texts(logits, self.rows) for logits in (self.found.logits, self.base)]
        return Point(
            self.found.flops_ratio or 1.0,
            self.task.divergence(*both),
            1 - self.task.agreement(*both) / 100,
        )


class Doubtful(Probe):
    """The texts on which the base model is least sure: decisions change there and hardly anywhere else.

    Parameters
    ----------
    model, encoder, task, rows
        As of `Probe`.
    max_change : float
        The bound that is sought.

    Attributes
    ----------
    doubt : float
        Standard error of `change` near the bound.
    offset : list of float, or None
        What brings the mean logits of these texts back to the base model's, for the thresholds that were
        measured last: evidence
        that is dropped is not missing on all sides alike. None for scores, whose r does not see it.
    """

    def __init__(
        self,
        model: PrunedModel,
        encoder: TextEncoder,
        task: Task,
        rows: dict[str, list],
        max_change: float,
    ):
        super().__init__(model, encoder, task, rows)
        self.doubt = task.doubt(max_change, self.texts)
        self.offset: list[float] | None = None
        if not task.decides:
            return  # every score counts
        self.doubt *= POOLED
        margins = task.margins(self.base, self.base)
        self.decisions = margins.size
        order = _least(margins.min(1), self.base).argsort()
        near = order[: max(LEAST, round(NEAR * max_change * self.decisions))]  # of rows
        self.rows = {key: [values[i] for i in near] for key, values in rows.items()}
        self.base = self.base[near]

    def change(self, thresholds: Tensor) -> float:
        """Expected share of decisions that change, of all, with `offset`; for scores, 1 less Pearson's r.

        Each decision's margin is held against the drifts of those whose margins are like its own, so that it
        is not chance alone whether a text on the edge has changed.
        """
        point = self(thresholds)
        if not self.task.decides:
            return point.change
        assert self.found is not None
        base, logits = answers_of(self.base), answers_of(self.found.logits)
        offset = (base - logits).mean(0)
        self.offset = offset.tolist()
        margin = self.task.margins(base, base).ravel()
        drift = margin - self.task.margins(logits + offset, base).ravel()
        return float(pooled(margin, drift).sum() / self.decisions)


def _least(margins: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The least margin of each row, from those of all answers ``[answers]``."""
    if rows.dtype != object:
        return margins
    ends = np.cumsum([len(row) for row in rows])[:-1]
    return np.array([part.min(initial=np.inf) for part in np.split(margins, ends)])


def pooled(margin: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """How likely decisions are to change, from least to largest margin: the share that is larger than the
    margin of the drifts of those next to it in rank, `WINDOW` of them. All are ``[n]``."""
    order = margin.argsort()
    margin, drift = margin[order], drift[order]
    window = min(WINDOW, len(drift))
    windows = np.lib.stride_tricks.sliding_window_view(drift, window)
    place = np.clip(np.arange(len(drift)) - window // 2, 0, len(windows) - 1)
    return (windows[place] > margin[:, None]).mean(1)


def set_dials(model: PrunedModel, thresholds: Tensor) -> None:
    """Set the thresholds ``[layers]`` of a model."""
    dials = model.pruner.dials()
    assert dials is not None
    dials.copy_(thresholds)
