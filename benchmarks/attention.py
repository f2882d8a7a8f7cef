"""Every route of attention with importance, by length: where the crossovers are.

    python benchmarks/attention.py --heads 12 --dim 32

Milliseconds, the median of interleaved rounds; about `--tokens` tokens in a batch, at least one text.
"""

from __future__ import annotations

import argparse
from functools import partial
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from thresher import native
from thresher.attention import logsumexp, matrix
from thresher.attention import native as fused
from thresher.inference.speed import side_by_side
from thresher.packed import PackedBatch
from thresher.pruners import Decision

LENGTHS = (25, 60, 125, 250, 500, 1000, 2000, 4000)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--dim", type=int, default=32, help="of a head")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--keep", type=float, default=0.5, help="share of the tokens that stay")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    routes = {"matrix": matrix, "log-sum-exp": logsumexp}
    if native.library is not None:
        routes[f"native ({native.instructions})"] = fused
    table = Table(title=f"{given.heads} heads of {given.dim}, {torch.get_num_threads()} threads: ms")
    for name in ("tokens", "texts", "in", *routes):
        table.add_column(name, justify="right")
    for length in LENGTHS:
        texts = max(1, given.tokens // length)
        (packed,) = PackedBatch.from_padded(torch.ones(texts, length))
        decision = Decision(torch.rand(packed.tokens) < given.keep)
        for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
            qkv = torch.randn(packed.tokens, 3, given.heads, given.dim).to(dtype).unbind(1)
            options = {"scale": given.dim**-0.5, "decide": lambda _, d=decision: d}
            runs = {
                route: partial(module.attend, *qkv, packed, **options) for route, module in routes.items()
            }
            row = (f"{1000 * median(taken):.2f}" for taken in side_by_side(runs, given.repeats).values())
            table.add_row(str(length), str(texts), name, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
