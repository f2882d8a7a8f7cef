"""What can be set about training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thresher.errors import UserError

if TYPE_CHECKING:
    import torch

LADDER = (0.7, 0.5, 0.35, 0.25, 0.18)  # budgets trained at once where a drop is given instead


@dataclass
class TrainingSettings:
    """Settings of one training run. The command line takes its defaults and its help from here.

    Parameters
    ----------
    soft_epochs : float
        Passes over the training texts with gates, which learn thresholds. A pruner that does not learn makes
        these passes with real drops.
    hard_epochs : float
        Passes over the training texts with real drops, which recover quality. Without any epochs, soft or
        hard, nothing is trained, and an adjustable pruner is only fitted to the budget.
    budget : float or list of float, optional
        Wanted FLOPs ratio, on texts as long as those of the job's ``eval``, else of ``held_out``, else
        of ``train``. Several are trained at once, as a ladder: steps take them in turn, and the model holds
        thresholds for each. None: nothing steers, and the soft stage has the paper's regulariser.
    max_drop : float, optional
        Points of quality that may be lost against the base model: a ladder of budgets is trained, and the
        cheapest point of it that loses no more on held-out texts is found and put first. It takes no budget.
    metric : str, optional
        Measure of quality, which chooses checkpoints and limits a drop. Single label: accuracy (default) or
        macro_f1, which does not overlook rare classes. Multi-label: micro_f1 (default), macro_f1 or
        exact_match. Scores: pearson (default) or spearman. A pruned folder remembers the metric, a dense one
        does not.
    regularizer : float
        The paper's lambda, weight of the mean gate in the loss. Only used without a budget.
    learning_rate : float
        Learning rate of the weights, which falls linearly to 0.
    threshold_learning_rate : float
        Learning rate of the thresholds, in fair shares a step.
    score_learning_rate : float
        Learning rate of the pruner's learned scores.
    temperature_start, temperature_end : float
        Width of the gate, in fair shares (twice that in logarithms, of learned scores), falling
        geometrically over the soft stage.
    dropout : bool, optional
        Train with the model's dropout. Default: finetune does; prune does not, because learning from the base
        model's outputs was no better with dropout.
    distill : float
        Share of the loss on the base model's outputs; the rest is on labels. Without labels the share is 1.
    distill_hidden : float
        Weight of the loss on survivors' hidden states, held to the base model's layer by layer in the hard
        stage. 0 saves a second model in memory, and its forward pass in every step.
    saliency : bool
        Start learned scores from what predicts the gradient of the base model's outputs, not from 0.
    batch_size : int
        Texts in a forward pass.
    accumulation : int
        Forward passes in a step.
    weight_decay : float
        Weight decay of the weights; thresholds and scores have none.
    warmup : float
        Share of the steps over which the learning rate rises.
    seed : int
        Seed of everything random.
    precision : {"auto", "fp32", "bf16"}
        Numbers to train in: auto, fp32 or bf16. auto is bf16 autocast where the machine computes in bf16,
        else fp32.
    evaluations : int
        Checkpoints that are written and measured on the way. The best one is taken; of prune, the best one
        of the hard stage.
    """

    soft_epochs: float = 1.0
    hard_epochs: float = 1.0
    budget: float | list[float] | None = None
    max_drop: float | None = None
    metric: str | None = None
    regularizer: float = 0.1
    learning_rate: float = 5e-5
    threshold_learning_rate: float = 0.02
    score_learning_rate: float = 5e-4
    temperature_start: float = 0.15
    temperature_end: float = 0.03
    dropout: bool | None = None
    distill: float = 0.9
    distill_hidden: float = 0.2
    saliency: bool = True
    batch_size: int = 32
    accumulation: int = 1
    weight_decay: float = 0.01
    warmup: float = 0.05
    seed: int = 42
    precision: str = "auto"
    evaluations: int = 6

    def __post_init__(self) -> None:
        if self.max_drop is not None and self.budget is not None:
            raise UserError("`budget` and `max_drop` exclude each other: name one of them.")
        for budget in self.budgets:
            if not 0 < budget <= 1:
                raise UserError(f"`budget` is {budget}; it is a FLOPs ratio: above 0, at most 1.")
        if self.max_drop is not None and not 0 < self.max_drop < 100:
            raise UserError(f"`max_drop` is {self.max_drop}; it is in points of quality: above 0, below 100.")
        if len(set(self.budgets)) < len(self.budgets):
            raise UserError("The same number is given twice in `budget`.")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise UserError(f"`precision` is '{self.precision}'; choose auto, fp32 or bf16.")
        if min(self.batch_size, self.accumulation, self.evaluations) < 1:
            raise UserError("`batch_size`, `accumulation` and `evaluations` must be 1 or more.")
        if not 0 <= self.distill <= 1:
            raise UserError(f"`distill` is {self.distill}; it is a share of the loss: from 0 to 1.")
        if not 0 <= self.distill_hidden < math.inf:
            raise UserError(f"`distill_hidden` is {self.distill_hidden}; it is a weight: 0 or more.")
        rates = ("learning_rate", "threshold_learning_rate", "score_learning_rate", "weight_decay")
        for name in ("soft_epochs", "hard_epochs", "seed", "regularizer", *rates):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(
                    f"`{name}` is {getattr(self, name)}; it must be finite, and must not be negative."
                )
        if self.seed >= 2**32:
            raise UserError(f"`seed` is {self.seed}; it must be below 2 ** 32.")
        if not 0 <= self.warmup < 1:
            raise UserError(f"`warmup` is {self.warmup}; it is a share of all steps: from 0, below 1.")

    @property
    def budgets(self) -> list[float]:
        """All of them; empty if there is none."""
        if self.budget is None:
            return [] if self.max_drop is None else list(LADDER)
        return list(self.budget) if isinstance(self.budget, (list, tuple)) else [self.budget]

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype to autocast to, or None."""
        import torch  # not before it is needed: the command line reads defaults here

        if self.precision == "auto":
            if torch.cuda.is_available():
                fast = torch.cuda.is_bf16_supported()
            else:
                one_dnn = torch.backends.mkldnn.is_available()
                fast = one_dnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
            return torch.bfloat16 if fast else None
        return torch.bfloat16 if self.precision == "bf16" else None
