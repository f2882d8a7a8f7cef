"""The labels of the training texts."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from thresher.objectives.base import Batch, Objective, Progress
from thresher.tasks import Task
from thresher.trace import Trace


class Labels(Objective):
    """Loss of the task.

    Parameters
    ----------
    task : Task
    weight : float
    """

    needs = frozenset({"labels"})

    def __init__(self, task: Task, weight: float):
        self.task, self.weight = task, weight

    def __call__(self, batch: Batch, output: Any, trace: Trace, progress: Progress) -> Tensor:
        assert batch.labels is not None
        return self.weight * self.task.loss(output.logits, batch.labels, batch.counts)
