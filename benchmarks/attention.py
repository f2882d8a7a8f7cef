"""Every route of attention with importance, by length: where the crossovers are.

    python benchmarks/attention.py --heads 12 --dim 32
    python benchmarks/attention.py --heads 12 --dim 64 --tokens 16000 --device cuda --out routes.json

Milliseconds, the median of interleaved rounds; about `--tokens` tokens in a batch, at least one text.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from thresher import native
from thresher.attention import Asked, Attended
from thresher.attention.flex import Flex
from thresher.attention.logsumexp import LogSumExp
from thresher.attention.matrix import Matrix
from thresher.attention.native import Native
from thresher.inference.speed import side_by_side
from thresher.packed import PackedBatch

LENGTHS = (25, 60, 125, 250, 500, 1000, 2000, 4000)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Routes = dict[str, type[Attended]]


def routes_on(device: str) -> Routes:
    """Those that run there at all, by the names of the table."""
    if device != "cpu":
        return {"matrix": Matrix, "flex": Flex}
    found: Routes = {"matrix": Matrix, "log-sum-exp": LogSumExp}
    return found if native.library is None else found | {f"native ({native.instructions})": Native}


def run(route: type[Attended], asked: Asked, survivors: torch.Tensor) -> None:
    """Importance of all tokens, and context rows of the survivors."""
    attended = route(asked)
    attended.importance()
    attended.context(survivors)[-1, -1].item()  # which waits for the device


def measured(given: argparse.Namespace, length: int, dtype: torch.dtype, routes: Routes) -> dict[str, float]:
    """Milliseconds of each route, for texts of one length."""
    (packed,) = PackedBatch.from_padded(torch.ones(max(1, given.tokens // length), length).to(given.device))
    survivors = (torch.rand(packed.tokens, device=given.device) < given.keep).nonzero().squeeze(1)
    qkv = torch.randn(packed.tokens, 3, given.heads, given.dim, device=given.device).to(dtype).unbind(1)
    asked = Asked(*qkv, packed, given.dim**-0.5)
    runs = {name: partial(run, route, asked, survivors) for name, route in routes.items()}
    return {name: 1000 * median(taken) for name, taken in side_by_side(runs, given.repeats).items()}


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
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--out", type=Path, help="file to write the figures to, in JSON")
    given = parser.parse_args()
    routes = routes_on(given.device)
    where = f"{torch.get_num_threads()} threads" if given.device == "cpu" else given.device
    table = Table(title=f"{given.heads} heads of {given.dim}, {where}: ms")
    for name in ("tokens", "texts", "in", *routes):
        table.add_column(name, justify="right")
    rows = []
    for length in given.lengths:
        for precision in given.precision.split(","):
            found = measured(given, length, DTYPES[precision], routes)
            rows.append({"length": length, "precision": precision, "ms": found})
            cells = (f"{taken:.2f}" for taken in found.values())
            table.add_row(str(length), str(max(1, given.tokens // length)), precision, *cells)
    Console().print(table)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
