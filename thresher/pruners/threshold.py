"""Learned Token Pruning: one learned threshold per layer (Kim et al., arXiv 2107.00910)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from thresher.errors import UserError
from thresher.plan import Plan
from thresher.pruners.base import Decision, LayerView, Sample
from thresher.pruners.ladder import Ladder
from thresher.pruners.rule import Rule
from thresher.pruners.score import fair_scores, regressed

# Under the paper's normalisation, thresholds are quoted in fair shares of a text of this many tokens.
PAPER_LENGTH = 128


class Threshold(Ladder):
    """The score is the attention that a token receives, what its hidden state says of it, or both.

    Parameters
    ----------
    layers, dim : int
    gate : {"exact", "paper"}
        Form of the gate in the soft stage. See `Pruner.accumulates` for what the model does with it.
    normalization : {"fair-share", "paper"}
        ``fair-share``: thresholds are multiples of the mean attention received, at any length. ``paper``:
        importance is divided by the number of alive tokens and the threshold is absolute; kept here times
        128, so that the unit is a fair share of a text of 128 tokens.
    score : {"attention", "both", "hidden"}
        What is held against the threshold, in fair shares: the importance, as in the paper; the importance
        times ``exp(w h)``, with a learned vector for each layer and ``h`` the token's hidden state at its
        entry; or ``exp(w h)`` alone, a learned predictor like those of Transkimmer (arXiv 2205.07324) and
        DynamicViT (arXiv 2106.02034), but linear, and with gates instead of drawn answers.
    learned : bool
        False: thresholds are not learned, but rise in proportion to the layer, as in an ablation of the
        paper, by one factor that a budget decides.
    budgets : sequence of float
        FLOPs ratios that thresholds are held for, a set for each.
    """

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
        super().__init__(layers, dim, budgets)
        _choose("gate", gate, ("exact", "paper"))
        _choose("normalization", normalization, ("fair-share", "paper"))
        _choose("score", score, ("attention", "both", "hidden"))
        self.accumulates = gate == "exact"
        self.normalization, self.score = normalization, score
        self.relative = self.fits = score != "attention"
        if not learned:
            self.learns = False
            self.table.data.copy_(torch.arange(1, layers + 1) / layers)
        if score != "attention":
            self.weight = nn.Parameter(torch.zeros(layers, dim, dtype=torch.float32))

    def forward(self, layer: LayerView, plan: Plan) -> Decision:
        if self.open(layer.index, plan):
            return Decision()
        packed, score = layer.packed, layer.importance
        if self.normalization == "paper":
            score = score * (PAPER_LENGTH / packed.lengths)[packed.sequence]
        if self.score != "attention":
            with torch.set_grad_enabled(plan.soft is not None and torch.is_grad_enabled()):
                weight, alone = self.weight[layer.index], self.score == "hidden"
                score = fair_scores(score, layer.hidden, weight, packed, alone)
        return self.decide(score, layer.index, plan)

    def rule(self, plan: Plan) -> Rule:
        return Rule(
            self.dials(plan.rung),
            None if self.score == "attention" else self.weight.detach(),
            alone=self.score == "hidden",
            length=PAPER_LENGTH if self.normalization == "paper" else 0.0,
        )

    def fit(self, samples: Iterable[Sample]) -> None:
        for index, vector in regressed(samples, beside_importance=self.score == "both").items():
            self.weight.data[index] = vector


def _choose(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"threshold has no {option} '{value}'; choose one of: {', '.join(known)}.")
