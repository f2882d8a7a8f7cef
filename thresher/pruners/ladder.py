"""Learned thresholds, one for each layer, and a set of them for each budget."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thresher.errors import UserError
from thresher.plan import Plan
from thresher.pruners.base import Decision, Pruner

LEAST = 0.02  # threshold of a learned score while it learns: nearer to 0 it would get no gradient
TINY = 1e-6  # least score of which a logarithm is taken
MOST = 100  # budgets of one model


class Ladder(Pruner):
    """A token stays if its score is at or above the threshold of its layer and budget.

    A subclass makes the score: it answers ``self.decide(score, layer.index, plan)``, and where `open` says so
    ``Decision()`` at once. Its parameters, but for the thresholds, are those of the score.

    Parameters
    ----------
    layers, dim : int
    budgets : sequence of float
        FLOPs ratios that thresholds are held for, a set for each.

    Attributes
    ----------
    table : float32 parameter [budgets, layers]
        The thresholds, in fair shares. They start at 0, where nothing is pruned.
    relative : bool
        Whether gates go by the ratio of the score to the threshold, as they must where the score is learned
        and has no unit: ``sigmoid(log(score / threshold) / 2T)``. Else they go by the difference:
        ``sigmoid((score - threshold) / T)``.
    """

    adjustable = True
    learns = True
    ladder = True
    relative: bool = True

    def __init__(self, layers: int, dim: int, budgets: Sequence[float] = ()):
        super().__init__(layers, dim)
        check_budgets(budgets)
        self.budgets = tuple(budgets)
        self.table = nn.Parameter(torch.zeros(max(1, len(budgets)), layers, dtype=torch.float32))

    def open(self, layer: int, plan: Plan) -> bool:
        """Whether nothing is held back in this layer, so that no score is needed."""
        return plan.soft is None and self.table[plan.rung, layer].item() <= 0

    def decide(self, score: Tensor, layer: int, plan: Plan) -> Decision:
        """Hold scores ``[tokens]`` against the threshold: gates in the soft stage, else who stays."""
        threshold = self.table[plan.rung, layer].to(score.dtype)
        if plan.soft is None:
            return Decision(keep=score >= threshold)
        # A sum of logsigmoid over layers is safe where log(sigmoid(x)) gives NaN gradients.
        if not self.relative:
            return Decision(log_gate=F.logsigmoid((score - threshold) / plan.soft.temperature))
        threshold = threshold + (LEAST - threshold).clamp(min=0).detach()
        ratio = score.clamp(min=TINY).log() - threshold.log()
        return Decision(log_gate=F.logsigmoid(ratio / (2 * plan.soft.temperature)))

    @property
    def thresholds(self) -> Tensor:
        """float32 [layers]: those of the first budget. A view: assign to it in place."""
        return self.dials()

    def dials(self, rung: int = 0) -> Tensor:
        return self.table.detach()[rung]

    def start(self) -> None:
        # A layer whose threshold has not come near its scores when gates grow narrow gets no gradient any
        # more, and never prunes: so thresholds start near there, at one value in all layers.
        self.table.detach().fill_(1.0)

    def score_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter is not self.table]

    def clamp(self) -> None:
        # A projection after the step. Clamped in the forward pass, a threshold at 0 would get no gradient
        # and its layer would never prune again.
        self.table.detach().clamp_(min=LEAST if self.relative else 0.0)

    def hold(self, budgets: Sequence[float], table: Tensor) -> None:
        """Hold thresholds ``[budgets, layers]`` for other budgets than before."""
        self.table = nn.Parameter(table)
        self.budgets = tuple(budgets)


def check_budgets(budgets: Sequence[float]) -> None:
    """Refuse what cannot be the FLOPs ratios that thresholds are held for.

    Raises
    ------
    UserError
        With what they must be.
    """
    known = isinstance(budgets, list | tuple) and len(budgets) <= MOST
    numbers = known and all(type(budget) in (int, float) for budget in budgets)
    if not numbers or not all(0 < budget <= 1 for budget in budgets):
        raise UserError(
            f"The pruner's option 'budgets' cannot be {budgets!r:.100}: it is a list of ratios above 0 and "
            f"up to 1, at most {MOST}."
        )
