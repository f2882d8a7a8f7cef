"""What can be set about training."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from thresher.errors import UserError


@dataclass
class TrainingSettings:
    """Settings of one training run.

    Parameters
    ----------
    soft_epochs, hard_epochs : float
        Passes over the training texts with gates, and with real drops. A pruner that does not
        learn has no soft stage: all passes are hard. Both 0: nothing is trained, and an adjustable
        pruner is only fitted to the budget.
    budget : float, optional
        Wanted FLOPs ratio. None: nothing steers, and the soft stage has the paper's regulariser.
    regularizer : float
        The paper's lambda, weight of the mean gate in the loss. Only used without a budget.
    learning_rate, threshold_learning_rate : float
        Of the weights, and of the thresholds (fair shares a step); both fall linearly to 0. The
        default is for a model that is fine-tuned already; to fine-tune one, 5e-5 is usual.
    temperature_start, temperature_end : float
        Width of the gate in fair shares, falling geometrically over the soft stage.
    distill : float
        Share of the loss that asks for base's outputs rather than for the labels. Without labels
        it is 1 whatever is said here.
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
    budget: float | None = None
    regularizer: float = 0.1
    learning_rate: float = 2e-5
    threshold_learning_rate: float = 0.02
    temperature_start: float = 0.15
    temperature_end: float = 0.03
    distill: float = 0.9
    batch_size: int = 32
    accumulation: int = 1
    weight_decay: float = 0.01
    warmup: float = 0.05
    seed: int = 42
    precision: str = "auto"
    evaluations: int = 6

    def __post_init__(self) -> None:
        if self.budget is not None and not 0 < self.budget <= 1:
            raise UserError(f"budget is {self.budget}; it is a FLOPs ratio: above 0, at most 1.")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise UserError(f"precision is '{self.precision}'; choose auto, fp32 or bf16.")
        if min(self.batch_size, self.accumulation, self.evaluations) < 1:
            raise UserError("batch_size, accumulation and evaluations must be 1 or more.")
        if not 0 <= self.distill <= 1:
            raise UserError(f"distill is {self.distill}; it is a share of the loss: from 0 to 1.")
        if self.soft_epochs < 0 or self.hard_epochs < 0:
            raise UserError("soft_epochs and hard_epochs must not be negative.")

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype to autocast to, or None."""
        if self.precision == "auto":
            fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else _cpu_has_bf16()
            return torch.bfloat16 if fast else None
        return torch.bfloat16 if self.precision == "bf16" else None


def _cpu_has_bf16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
