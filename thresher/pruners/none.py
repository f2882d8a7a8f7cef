"""Keeps every token: the packed dense model."""

from thresher.plan import Plan
from thresher.pruners.base import Decision, LayerView, Pruner


class NoPruning(Pruner):
    """Prunes nothing."""

    drops = False

    def forward(self, layer: LayerView, plan: Plan) -> Decision:
        return Decision()
