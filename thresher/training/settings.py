"""What can be set about training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from thresher.errors import UserError

LADDER = (0.7, 0.5, 0.35, 0.25, 0.18)  # budgets trained at once where a drop is given instead


@dataclass
class TrainingSettings:
    """Settings of one training run.

    Parameters
    ----------
    soft_epochs, hard_epochs : float
        Passes over the training texts with gates, and with real drops. A pruner that does not
        learn has no soft stage: all passes are hard. Both 0: nothing is trained, and an adjustable
        pruner is only fitted to the budget.
    budget : float or list of float, optional
        Wanted FLOPs ratio, on texts as long as those of the job's ``eval``, else of ``held_out``, else
        of ``train``. Several are trained at once, as a ladder: steps take them in turn, and the model holds
        thresholds for each. None: nothing steers, and the soft stage has the paper's regulariser.
    max_drop : float, optional
        Points of quality that may be lost against base: a ladder of budgets is trained, and the cheapest
        point of it that loses no more on held-out texts is found and put first. It takes no budget.
    metric : str, optional
        What checkpoints are chosen by and a drop is measured in, one of the `METRICS` of its task. None:
        accuracy, micro_f1 or pearson.
    regularizer : float
        The paper's lambda, weight of the mean gate in the loss. Only used without a budget.
    learning_rate, threshold_learning_rate, score_learning_rate : float
        Of the weights, of the thresholds (fair shares a step), and of a pruner's learned scores; all fall
        linearly to 0.
    temperature_start, temperature_end : float
        Width of the gate, in fair shares (twice that in logarithms, of learned scores), falling
        geometrically over the soft stage.
    dropout : bool, optional
        Use the model's dropout. None: where a model is fine-tuned, not where it is pruned. On CPUs a step
        takes twice as long with it, and pruning, which learns from base's outputs, was no better for it.
    distill : float
        Share of the loss that asks for base's outputs rather than for the labels. Without labels
        it is 1 whatever is said here.
    distill_hidden : float
        Weight of the loss of the hard stage that asks survivors' hidden states to be base's, layer by layer.
        It takes a second model in memory, and base's forward pass in every hard step. 0: none.
    saliency : bool
        Learned scores start from what foretells the gradient of base's outputs (`fit_scores`), not from 0.
    batch_size, accumulation : int
        Texts in a forward pass, and passes in a step.
    weight_decay, warmup : float
        The latter as a share of all steps.
    seed : int
    precision : {"auto", "fp32", "bf16"}
        ``auto`` is bf16 autocast where the machine computes in it, else fp32.
    evaluations : int
        Checkpoints written and measured on the way; the best of the hard stage is taken.
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
            raise UserError("Name a budget or a drop, not both: one follows from the other.")
        for budget in self.budgets:
            if not 0 < budget <= 1:
                raise UserError(f"budget is {budget}; it is a FLOPs ratio: above 0, at most 1.")
        if self.max_drop is not None and not 0 < self.max_drop < 100:
            raise UserError(f"max_drop is {self.max_drop}; it is in points of quality: above 0, below 100.")
        if len(set(self.budgets)) < len(self.budgets):
            raise UserError("The same budget is given twice.")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise UserError(f"precision is '{self.precision}'; choose auto, fp32 or bf16.")
        if min(self.batch_size, self.accumulation, self.evaluations) < 1:
            raise UserError("batch_size, accumulation and evaluations must be 1 or more.")
        if not 0 <= self.distill <= 1:
            raise UserError(f"distill is {self.distill}; it is a share of the loss: from 0 to 1.")
        if not 0 <= self.distill_hidden < math.inf:
            raise UserError(f"distill_hidden is {self.distill_hidden}; it is a weight: 0 or more.")
        rates = ("learning_rate", "threshold_learning_rate", "score_learning_rate", "weight_decay")
        for name in ("soft_epochs", "hard_epochs", "seed", "regularizer", *rates):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(
                    f"{name} is {getattr(self, name)}; it must be finite, and must not be negative."
                )
        if self.seed >= 2**32:
            raise UserError(f"seed is {self.seed}; it must be below 2 ** 32.")
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup is {self.warmup}; it is a share of all steps: from 0, below 1.")

    @property
    def budgets(self) -> list[float]:
        """All of them; empty if there is none."""
        if self.budget is None:
            return [] if self.max_drop is None else list(LADDER)
        return list(self.budget) if isinstance(self.budget, (list, tuple)) else [self.budget]

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype to autocast to, or None."""
        if self.precision == "auto":
            fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else _cpu_has_bf16()
            return torch.bfloat16 if fast else None
        return torch.bfloat16 if self.precision == "bf16" else None


def _cpu_has_bf16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
