"""The outputs of the base model."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from thresher.objectives.base import Batch, Objective, Progress
from thresher.tasks import Task
from thresher.trace import Trace


class DistilOutputs(Objective):
    """Distance from what the base model answers.

    Parameters
    ----------
    task : Task
    weight : float
    """

    needs = frozenset({"base outputs"})

    def __init__(self, task: Task, weight: float):
        self.task, self.weight = task, weight

    def __call__(self, batch: Batch, output: Any, trace: Trace, progress: Progress) -> Tensor:
        assert batch.base is not None
        return self.weight * self.task.distance(output.logits, batch.base, batch.counts)
