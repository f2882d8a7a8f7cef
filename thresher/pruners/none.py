"""Keeps every token: the packed dense model."""

from thresher.plan import Plan
from thresher.pruners.base import Decision, LayerView, Pruner
from thresher.pruners.rule import Rule


class NoPruning(Pruner):
    """Prunes nothing."""

    drops = False

    def forward(self, layer: LayerView, plan: Plan) -> Decision:
        return Decision()

    def rule(self, plan: Plan) -> Rule:
        return Rule.open(self.layers)
