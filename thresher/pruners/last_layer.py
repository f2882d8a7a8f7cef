"""The free baseline: after the last attention only the prefix is needed by a [CLS] head."""

import torch

from thresher.pruners.base import Decision, Pruner


class LastLayer(Pruner):
    """Drops everything but the prefix in the last layer. Outputs of a [CLS] head do not change."""

    leaves_prefix = True

    def prunes(self, layer, plan):
        return layer == self.layers - 1

    def forward(self, layer, importance, hidden, packed, plan):
        return Decision(torch.zeros_like(importance, dtype=torch.bool) if self.prunes(layer, plan) else None)
