"""A training step, forward and backward: transformers padded beside ours, in the soft and in the hard stage.

    python benchmarks/training.py runs/imdb-384-base-0 --data imdb/train.jsonl.gz --text text --max-length 256

Seconds for the same texts, in batches of 32 as they come; the median of interleaved rounds, without the
optimiser; and how much memory a round takes above what was there. "Near lengths" are batches of as many
tokens, but of texts of near lengths: what a sampler by token budget would make.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from thresher import PrunedModel, PruningConfig, native
from thresher.batches import token_batches
from thresher.data import load_examples
from thresher.inference.speed import side_by_side
from thresher.inputs.text import TextEncoder, load_tokenizer
from thresher.memory import peak_above
from thresher.plan import Soft
from thresher.training.base import load_base
from thresher.training.settings import TrainingSettings

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a fine-tuned transformers folder")
    parser.add_argument("--data", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--keep", type=float, default=0.5, help="FLOPs ratio of the hard stage, about")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    dense, _ = load_base(given.model)
    model = PrunedModel(dense, PruningConfig())
    encoder = TextEncoder(load_tokenizer(given.model), model.family.length_limit(given.max_length))
    examples = load_examples(given.data, given.text.split(","))
    chosen = np.random.default_rng(0).permutation(len(examples))[: given.texts]
    columns = encoder.encode_columns(examples.select(chosen))
    lengths = [len(ids) for ids in columns["input_ids"]]
    as_they_come = [list(range(i, min(i + BATCH, len(lengths)))) for i in range(0, len(lengths), BATCH)]
    near = token_batches(lengths, sum(lengths) // len(as_they_come), len(lengths))
    model.pruner.thresholds.copy_(torch.linspace(0.4, 1.4, model.family.layers) * (1 - given.keep))
    autocast = TrainingSettings().autocast

    def run(engine: Any, batches: list[list[int]], *, soft: bool, dropout: bool, fused: bool) -> None:
        model.train()
        model.soft = Soft(0.1) if soft else None
        with ExitStack() as stack:
            if not fused:
                stack.enter_context(patch.object(native, "library", None))
            if not dropout:
                stack.enter_context(model.without_dropout())
            for rows in batches:
                batch = encoder.pad({key: [values[i] for i in rows] for key, values in columns.items()})
                with torch.autocast(model.device.type, autocast, enabled=autocast is not None):
                    output = engine(**batch)
                loss = output.logits.float().square().mean()
                if soft:
                    loss = loss + output.trace.flops.sum() / output.trace.dense_flops.sum()
                loss.backward()
                model.zero_grad()

    runs: dict[str, Callable[[], None]] = {
        "transformers": partial(run, dense, as_they_come, soft=False, dropout=True, fused=True)
    }
    for stage in ("soft", "hard"):
        go = partial(run, model, soft=stage == "soft")
        runs |= {
            f"{stage}, with dropout": partial(go, as_they_come, dropout=True, fused=True),
            f"{stage}, attention by torch": partial(go, as_they_come, dropout=False, fused=False),
            f"{stage}": partial(go, as_they_come, dropout=False, fused=True),
            f"{stage}, near lengths": partial(go, near, dropout=False, fused=True),
        }
    found = side_by_side(runs, given.repeats)
    mean, threads = sum(lengths) / len(lengths), torch.get_num_threads()
    table = Table(title=f"{len(lengths)} texts, mean {mean:.0f} tokens, {threads} threads, {autocast}")
    for name in ("", "seconds", "spread", "x transformers", "MB"):
        table.add_column(name, justify="right" if name else "left")
    for name, taken in found.items():
        ratio = median(a / b for a, b in zip(found["transformers"], taken, strict=True))
        spread = f"{min(taken):.2f}-{max(taken):.2f}"
        memory = f"{peak_above(runs[name]):,.0f}"
        table.add_row(name, f"{median(taken):.2f}", spread, f"{ratio:.2f}", memory)
    Console().print(table)


if __name__ == "__main__":
    main()
