"""What a training run works with, and what each of its acts hands to the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thresher.inference.progress import Stages, silent
from thresher.inputs.text import TextEncoder
from thresher.model import PrunedModel
from thresher.objectives import Budget, DistilHidden, DistilOutputs, Labels, Objective
from thresher.tasks import Task
from thresher.training.examples import Examples, join
from thresher.training.settings import TrainingSettings

FIT_TEXTS = 512  # on which thresholds are fitted to the budget


@dataclass(frozen=True)
class Work:
    """One training run.

    Attributes
    ----------
    model : PrunedModel
        Trained in place.
    encoder : TextEncoder
    task : Task
    examples, held_out : Examples
        To learn from, and those on which checkpoint and thresholds are chosen.
    settings : TrainingSettings
    folder : Path
        Checkpoints are written under it; from the newest there, if there is one, training goes on.
    wanted : array of int, optional
        Tokens of texts that the budget is meant for. None: as long as those at hand.
    stage : Stages
        Shows what is done.
    """

    model: PrunedModel
    encoder: TextEncoder
    task: Task
    examples: Examples
    held_out: Examples
    settings: TrainingSettings
    folder: Path
    wanted: np.ndarray | None = None
    stage: Stages = silent

    def sample(self) -> Examples:
        """Texts on which FLOPs ratios are measured."""
        return join(self.held_out, self.examples, FIT_TEXTS).weigh(self.wanted)


@dataclass(frozen=True)
class Prepared:
    """What training begins with.

    Attributes
    ----------
    sample : Examples
        On which FLOPs ratios are measured.
    budgets : list of float
        One for each rung; empty where nothing steers.
    soft_epochs, epochs : float
        Passes of the soft stage, and of both.
    objectives : list of Objective
    checkpoint : Path, optional
        To go on from.
    """

    sample: Examples
    budgets: list[float]
    soft_epochs: float
    epochs: float
    objectives: list[Objective]
    checkpoint: Path | None


@dataclass(frozen=True)
class Trained:
    """What training ended with.

    Attributes
    ----------
    history : list of dict
        Loss, FLOPs ratio, temperature and the like over the steps.
    within_budget : bool
        Whether a checkpoint of the hard stage was within the budget.
    """

    history: list[dict[str, Any]]
    within_budget: bool


def objectives_of(task: Task, settings: TrainingSettings, labelled: bool) -> list[Objective]:
    """The terms of the loss, where texts have labels or have not."""
    share = settings.distill if labelled else 1.0
    terms: list[Objective] = []
    if share > 0:
        terms.append(DistilOutputs(task, share))
    if share < 1:
        terms.append(Labels(task, 1 - share))
    if settings.distill_hidden > 0:
        terms.append(DistilHidden(settings.distill_hidden))
    return [*terms, Budget()]
