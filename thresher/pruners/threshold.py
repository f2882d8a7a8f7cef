"""Learned Token Pruning: one learned threshold per layer (Kim et al., arXiv 2107.00910)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thresher.errors import UserError
from thresher.plan import Plan
from thresher.pruners.base import Decision, Pruner
from thresher.pruners.score import fair_scores

# Under the paper's normalisation, thresholds are quoted in fair shares of a text of this many tokens.
PAPER_LENGTH = 128
LEAST = 0.02  # threshold of a learned score while it learns: nearer to 0 it would get no gradient
TINY = 1e-6  # least score of which a logarithm is taken
MOST = 100  # budgets of one model
SMALLEST = 1e-3  # threshold, in fair shares, from which a budget can still be reached by factors


class Threshold(Pruner):
    """A token stays if its importance is at or above the layer's threshold.

    Parameters
    ----------
    layers, dim : int
    gate : {"exact", "paper"}
        Form of the gate in the soft stage: ``sigmoid((importance - threshold) / T)``, or with learned scores
        ``sigmoid(log(score / threshold) / 2T)``. See `Pruner.accumulates` for what the model does with it.
    normalization : {"fair-share", "paper"}
        ``fair-share``: thresholds are multiples of the mean attention received, at any length.
        ``paper``: importance is divided by the number of alive tokens and the threshold is
        absolute; kept here times 128, so that the unit is a fair share of a text of 128 tokens.
    score : {"attention", "both", "hidden"}
        What is held against the threshold, in fair shares: the importance, as in the paper; the importance
        times ``exp(w h)``, with a learned vector for each layer and ``h`` the token's hidden state at its
        entry; or ``exp(w h)`` alone, a learned predictor like those of Transkimmer (arXiv 2205.07324) and
        DynamicViT (arXiv 2106.02034), but linear, and with gates instead of drawn answers.
    learned : bool
        False: thresholds are not learned, but rise in proportion to the layer, as in an ablation of the
        paper, by one factor that a budget decides.
    budgets : sequence of float
        FLOPs ratios that thresholds are held for, a set for each: see `set_budget`.
    """

    adjustable = True
    learns = True
    dials = ("table",)
    ladder = True

    def __init__(
        self,
        layers: int,
        dim: int,
        gate: str = "exact",
        normalization: str = "fair-share",
        score: str = "both",
        learned: bool = True,
        budgets: Sequence[float] = (),
    ):
        super().__init__(layers, dim)
        _choose("gate", gate, ("exact", "paper"))
        _choose("normalization", normalization, ("fair-share", "paper"))
        _choose("score", score, ("attention", "both", "hidden"))
        check_budgets(budgets)
        self.accumulates = gate == "exact"
        self.normalization, self.score, self.budgets = normalization, score, tuple(budgets)
        self.table = nn.Parameter(torch.zeros(max(1, len(budgets)), layers, dtype=torch.float32))
        if not learned:
            self.learns = False
            self.table.data.copy_(torch.arange(1, layers + 1) / layers)
        if score != "attention":
            self.weight = nn.Parameter(torch.zeros(layers, dim, dtype=torch.float32))

    @property
    def thresholds(self) -> Tensor:
        """float32 [layers]: the thresholds in use. A view: assign to it in place."""
        return self.table.detach()[self.rung]

    def score_parameters(self) -> list[nn.Parameter]:
        return [] if self.score == "attention" else [self.weight]

    def prunes(self, layer: int, plan: Plan) -> bool:
        return plan.learning or self.table[plan.rung, layer].item() > 0

    def hold(self, budgets: Sequence[float], table: Tensor) -> None:
        """Hold thresholds ``[budgets, layers]`` for other budgets than before, and use the first."""
        self.table = nn.Parameter(table)
        self.budgets, self.rung = tuple(budgets), 0

    def rescale(self, factor: float) -> None:
        # A layer at 0 would stay there whatever the factor.
        self.thresholds.clamp_(min=SMALLEST).mul_(factor)

    def clamp(self) -> None:
        # A projection after the step. Clamped in the forward pass, a threshold at 0 would get no
        # gradient and its layer would never prune again.
        self.table.detach().clamp_(min=0.0 if self.score == "attention" else LEAST)

    def forward(self, layer, importance, hidden, packed, plan):
        if self.normalization == "paper":
            importance = importance * (PAPER_LENGTH / packed.lengths)[packed.sequence]
        if self.score != "attention":
            alone = self.score == "hidden"
            with torch.set_grad_enabled(plan.learning and torch.is_grad_enabled()):
                importance = fair_scores(importance, hidden, self.weight[layer], packed, alone)
        threshold = self.table[plan.rung, layer].to(importance.dtype)
        if plan.learning:
            # A sum of logsigmoid over layers is safe where log(sigmoid(x)) gives NaN gradients.
            if self.score == "attention":
                return Decision(log_gate=F.logsigmoid((importance - threshold) / self.temperature))
            # A learned score has no unit: how far it is from its threshold is a ratio. In units, scores
            # would shrink until gates of any temperature are half open.
            threshold = threshold + (LEAST - threshold).clamp(min=0).detach()
            ratio = importance.clamp(min=TINY).log() - threshold.log()
            return Decision(log_gate=F.logsigmoid(ratio / (2 * self.temperature)))
        return Decision(keep=importance >= threshold)


def _choose(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"threshold has no {option} '{value}'; choose one of: {', '.join(known)}.")


def check_budgets(budgets: Sequence[float]) -> None:
    """Refuse what cannot be the FLOPs ratios that thresholds are held for."""
    known = isinstance(budgets, list | tuple) and len(budgets) <= MOST
    numbers = known and all(type(budget) in (int, float) for budget in budgets)
    if not numbers or not all(0 < budget <= 1 for budget in budgets):
        raise UserError(
            f"Option 'budgets' of pruner 'threshold' cannot be {budgets!r:.100}: it is a list of "
            f"ratios above 0 and up to 1, at most {MOST}."
        )
