"""transformers itself, with its fused attention."""

from __future__ import annotations

import torch

from thresher.engines import to_bfloat16
from thresher.measure.rivals import Batch, Runner, Setup

NEEDS: tuple[str, ...] = ()
PRECISIONS = ("fp32", "bf16")


def load(setup: Setup, precision: str) -> Runner:
    model = setup.dense()
    if precision == "bf16":
        to_bfloat16(model)

    def run(batch: Batch) -> torch.Tensor:
        return model(**batch).logits

    return run
