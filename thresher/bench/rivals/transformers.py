"""transformers itself, with its fused attention."""

from __future__ import annotations

import torch

from thresher.bench.rivals import Batch, Runner, Setup
from thresher.inference.load import dense_model

NEEDS: tuple[str, ...] = ()
EXTRA = ""
PRECISIONS = ("fp32", "bf16")


def load(setup: Setup, precision: str) -> Runner:
    model = dense_model(setup.folder, precision)

    def run(batch: Batch) -> torch.Tensor:
        return model(**batch).logits

    return run
