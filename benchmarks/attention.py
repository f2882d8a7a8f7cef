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
from thresher.attention import Asked, Attended
from thresher.attention.logsumexp import LogSumExp
from thresher.attention.matrix import Matrix
from thresher.attention.native import Native
from thresher.inference.speed import side_by_side
from thresher.packed import PackedBatch

LENGTHS = (25, 60, 125, 250, 500, 1000, 2000, 4000)


def run(route: type[Attended], asked: Asked, survivors: torch.Tensor) -> None:
    """Importance of all tokens, and context rows of the survivors."""
    attended = route(asked)
    attended.importance()
    attended.context(survivors)


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
    routes: dict[str, type[Attended]] = {"matrix": Matrix, "log-sum-exp": LogSumExp}
    if native.library is not None:
        routes[f"native ({native.instructions})"] = Native
    table = Table(title=f"{given.heads} heads of {given.dim}, {torch.get_num_threads()} threads: ms")
    for name in ("tokens", "texts", "in", *routes):
        table.add_column(name, justify="right")
    for length in LENGTHS:
        texts = max(1, given.tokens // length)
        (packed,) = PackedBatch.from_padded(torch.ones(texts, length))
        survivors = (torch.rand(packed.tokens) < given.keep).nonzero().squeeze(1)
        for dtype, precision in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
            qkv = torch.randn(packed.tokens, 3, given.heads, given.dim).to(dtype).unbind(1)
            asked = Asked(*qkv, packed, given.dim**-0.5)
            runs = {name: partial(run, route, asked, survivors) for name, route in routes.items()}
            cells = (f"{1000 * median(taken):.2f}" for taken in side_by_side(runs, given.repeats).values())
            table.add_row(str(length), str(texts), precision, *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
