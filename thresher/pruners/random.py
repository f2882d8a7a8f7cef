"""The baseline that any method has to beat: tokens go by lot."""

from dataclasses import replace

from thresher.plan import Plan
from thresher.pruners.base import Decision, LayerView
from thresher.pruners.topk import TopK

# Constants of a multiplicative generator; products stay within 63 bits.
MULTIPLIER, MODULUS = 1_103_515_245, 2**31 - 1


class Random(TopK):
    """As many tokens go, layer by layer, as with top-k, but by lot. A token's lot hangs on its place and
    on the length of its text alone, so that it is the same in any batch. Options are those of `TopK`."""

    def forward(self, layer: LayerView, plan: Plan) -> Decision:
        packed = layer.packed
        lot = packed.positions + 1009 * packed.original_lengths[packed.sequence]
        for _ in range(3):
            lot = (lot + 1) * MULTIPLIER % MODULUS
            lot = lot ^ (lot >> 15)
        return super().forward(replace(layer, received=lot.double), plan)
