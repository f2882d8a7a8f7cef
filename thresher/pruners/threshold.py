"""Learned Token Pruning: one learned threshold per layer (Kim et al., arXiv 2107.00910)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thresher.errors import UserError
from thresher.pruners.base import Decision, Pruner

# Under the paper's normalisation, thresholds are quoted in fair shares of a text of this many tokens.
PAPER_LENGTH = 128
SMALLEST = 1e-3  # threshold, in fair shares, from which a budget can still be reached by factors


class Threshold(Pruner):
    """A token stays if its importance is at or above the layer's threshold.

    Parameters
    ----------
    layers, dim : int
    gate : {"exact", "paper"}
        Form of the gate in the soft stage. Both are ``sigmoid((importance - threshold) / T)``; see
        `Pruner.accumulates` for what the model does with it.
    normalization : {"fair-share", "paper"}
        ``fair-share``: thresholds are multiples of the mean attention received, at any length.
        ``paper``: importance is divided by the number of alive tokens and the threshold is
        absolute; kept here times 128, so that the unit is a fair share of a text of 128 tokens.
    rungs : int
        Sets of thresholds held; the first is in use.
    """

    adjustable = True
    learns = True

    def __init__(
        self,
        layers: int,
        dim: int,
        gate: str = "exact",
        normalization: str = "fair-share",
        rungs: int = 1,
    ):
        super().__init__(layers, dim)
        _choose("gate", gate, ("exact", "paper"))
        _choose("normalization", normalization, ("fair-share", "paper"))
        self.accumulates = gate == "exact"
        self.normalization = normalization
        self.table = nn.Parameter(torch.zeros(rungs, layers, dtype=torch.float32))

    @property
    def thresholds(self) -> Tensor:
        """float32 [layers]: the thresholds in use. A view: assign to it in place."""
        return self.table.detach()[0]

    def prunes(self, layer: int) -> bool:
        return self.learning or self.table[0, layer].item() > 0

    def rescale(self, factor: float) -> None:
        # A layer at 0 would stay there whatever the factor.
        self.thresholds.clamp_(min=SMALLEST).mul_(factor)

    def clamp(self) -> None:
        # A projection after the step. Clamped in the forward pass, a threshold at 0 would get no
        # gradient and its layer would never prune again.
        self.thresholds.clamp_(min=0)

    def forward(self, layer, importance, hidden, packed):
        if self.normalization == "paper":
            importance = importance * (PAPER_LENGTH / packed.lengths)[packed.sequence]
        if self.learning:
            # A sum of logsigmoid over layers is safe where log(sigmoid(x)) gives NaN gradients.
            return Decision(log_gate=F.logsigmoid((importance - self.table[0, layer]) / self.temperature))
        return Decision(keep=importance >= self.table[0, layer])


def _choose(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"threshold has no {option} '{value}'; choose one of: {', '.join(known)}.")
