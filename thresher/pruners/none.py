"""Keeps every token: the packed dense model."""

from thresher.pruners.base import Decision, Pruner


class NoPruning(Pruner):
    """Prunes nothing."""

    def prunes(self, layer, plan):
        return False

    def forward(self, layer, importance, hidden, packed, plan):
        return Decision()
