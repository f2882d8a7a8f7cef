"""transformers itself, with its fused attention."""

from __future__ import annotations

import torch

from thresher.bench.rivals import Batch, Runner, Setup, on
from thresher.store import dense_model

NEEDS: tuple[str, ...] = ()
EXTRA = ""
PRECISIONS = ("fp32", "bf16")


def load(setup: Setup, precision: str) -> Runner:
    model = dense_model(setup.folder, precision).to(setup.device)
    torch.set_num_threads(setup.threads)

    @torch.inference_mode()
    def run(batch: Batch) -> torch.Tensor:
        return model(**on(setup.device, batch)).logits.cpu()

    return run
