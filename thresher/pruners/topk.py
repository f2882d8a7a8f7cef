"""Top-k by attention received, after SpAtten (Wang et al., HPCA 2021)."""

import math

import torch
from torch import Tensor, nn

from thresher.errors import UserError
from thresher.plan import Plan
from thresher.pruners.base import Decision, LayerView, Pruner


class TopK(Pruner):
    """Each layer keeps a fixed share of the sequence's original tokens: those of highest importance.

    Parameters
    ----------
    layers, dim : int
    dense_layers : int, optional
        First layers that drop nothing. Default: max(3, 15 % of the layers), as SpAtten has it.
    slope : float
        Share of the original tokens that every layer after them drops: the kept share falls
        linearly. Default: half of the tokens are left after the last layer.
    """

    adjustable = True
    advice = ", or set the option dense_layers lower"

    def __init__(self, layers: int, dim: int, dense_layers: int | None = None, slope: float | None = None):
        super().__init__(layers, dim)
        self.dense_layers = max(3, math.ceil(0.15 * layers)) if dense_layers is None else dense_layers
        if not 0 <= self.dense_layers < layers:
            raise UserError(
                f"topk leaves the first {self.dense_layers} of {layers} layers dense, so there is none "
                "to prune; set the option dense_layers lower."
            )
        if slope is not None and not 0 <= slope <= 1:
            raise UserError(f"Option 'slope' of topk cannot be {slope}: it is a share of the tokens, 0 to 1.")
        steps = layers - self.dense_layers
        self.slope = nn.Buffer(torch.tensor(0.5 / steps if slope is None else float(slope)))

    def dials(self, rung: int = 0) -> Tensor:
        return self.slope

    def forward(self, layer: LayerView, plan: Plan) -> Decision:
        if layer.index < self.dense_layers:
            return Decision()
        packed = layer.packed
        share = 1 - self.slope * (layer.index + 1 - self.dense_layers)
        # Rounded up, less a hair: 0.7 * 10 in float32 is a little over 7.
        wanted = ((share.double() - 1e-6) * packed.original_lengths).ceil()
        order = torch.argsort(layer.importance, descending=True, stable=True)
        order = order[torch.argsort(packed.sequence[order], stable=True)]  # by sequence, then importance
        rank = torch.empty_like(order)
        rank[order] = torch.arange(packed.tokens, device=order.device) - packed.cu_seqlens[packed.sequence]
        return Decision(rank < wanted[packed.sequence])
