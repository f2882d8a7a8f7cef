"""The FLOPs budget."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from thresher.objectives.base import Batch, Objective, Progress
from thresher.trace import Trace


class Budget(Objective):
    """What missing the budget costs now, which the training's own progress knows."""

    def __call__(self, batch: Batch, output: Any, trace: Trace, progress: Progress) -> Tensor | float:
        return progress.penalty(trace, batch.weights)
