"""transformers itself, with its fused attention."""

from __future__ import annotations

from typing import Any

import torch

from thresher.bench.rivals import Batch, Runner, Setup, logits_of, on
from thresher.store import dense_model

NEEDS: tuple[str, ...] = ()
EXTRA = ""
PRECISIONS = ("fp32", "bf16")


def load(setup: Setup, precision: str) -> Runner:
    model = dense_model(setup.folder, precision).to(setup.device)
    torch.set_num_threads(setup.threads)

    @torch.inference_mode()
    def run(batch: Batch) -> Any:
        return logits_of(model(**on(setup.device, batch))).cpu()

    return run
