"""What fine-tuning and pruning came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from thresher.reports.base import Kept, Quality, Report
from thresher.reports.speed import Speed


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The files of a training job, and how many texts they had; `max_length` in tokens, `truncated` texts."""

    train: str
    text: list[str]
    eval: str | None = None
    label: str | None = None
    held_out: str | None = None
    label_map: dict[str, str] | None = None
    train_texts: int
    held_out_texts: int
    eval_texts: int
    max_length: int
    truncated: int

    @property
    def chosen_on_eval(self) -> bool:
        """Whether the texts that quality is reported on chose the checkpoint, too."""
        return self.eval in (None, self.held_out)


@dataclass(frozen=True, kw_only=True)
class Training(Report, Kept):
    """What fine-tuning and pruning came to.

    Attributes
    ----------
    out : str
        The finished folder.
    task, metric : str
    data : TrainingData
    settings : dict
        Those of `TrainingSettings`, with what was computed in and the threads.
    quality : dict of str to Quality
        By the name of the model: base, dense, pruned.
    speed : Speed, or None
        None in reports that were written before speed was always measured.
    resumed : bool
        Whether only the last part of the run is in `seconds`.
    job : dict
        What was run, and on what, by which a resumed run knows its own.
    """

    out: str
    task: str
    metric: str
    data: TrainingData
    settings: dict[str, Any]
    quality: dict[str, Quality]
    resumed: bool = False
    speed: Speed | None = None
    job: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Finetuning(Training):
    """What `finetune` came to."""

    command = "finetune"


@dataclass(frozen=True, kw_only=True)
class Rung(Kept):
    """A model at one of its budgets."""

    budget: float
    quality: Quality


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What came of a tolerated drop.

    Attributes
    ----------
    bound, drop : float
        Points of quality that may be lost, and that are, on the held-out texts, weighed by their lengths as
        FLOPs are.
    error : float, or None
        Standard error of the drop; None in reports of before.
    interval : tuple of float
        95 % interval of the drop, by bootstrap over texts, with both models in pairs. The same texts chose
        the point, so that the interval errs a little to the good side.
    kept : bool
        Whether the drop is within the bound.
    clear : bool
        Whether the drop stays clear of the bound by a standard error. Where no point does, this is the point
        that loses least: weights that have learned to run pruned may lose more without any threshold.
    flops_ratio : float
        On the held-out texts, weighed by their lengths as in training.
    texts : int
        How many those are.
    tried : list of dict
        FLOPs ratio and drop of all points that were measured.
    metric : str, optional
        What the points are of; None in reports of before.
    """

    bound: float
    drop: float
    interval: tuple[float, float]
    kept: bool
    clear: bool
    flops_ratio: float
    texts: int
    tried: list[dict[str, float]]
    error: float | None = None
    metric: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pruning(Training):
    """What `prune` came to.

    Attributes
    ----------
    pruning : dict
        JSON form of the `PruningConfig`.
    ladder : list of Rung
        Where the model holds budgets, each of them.
    history : list of dict
        Loss, FLOPs ratio, held-out quality and the like over the steps.
    agreement : float, or None
        Percent of decisions that are the base model's; None in reports of before.
    drop : float
        Points of the main figure lost against the base model; negative where points were gained.
    drop_interval : tuple of float
        95 % interval of the drop.
    max_drop : Choice, or None
        Where a drop was tolerated instead of a budget.
    """

    command = "prune"

    pruning: dict[str, Any]
    ladder: list[Rung]
    history: list[dict[str, Any]]
    drop: float
    drop_interval: tuple[float, float]
    agreement: float | None = None
    max_drop: Choice | None = None
