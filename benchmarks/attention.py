"""Every route of attention with importance, by length: where the crossovers are.

    python benchmarks/attention.py --heads 12 --dim 32
    python benchmarks/attention.py --heads 12 --dim 64 --tokens 16000 --device cuda --out routes.json
    python benchmarks/attention.py --heads 12 --dim 64 --lengths 250 --bias 32 --repeats 101

Milliseconds, the median of interleaved rounds; about `--tokens` tokens in a batch, at least one text.
`--bias` compares native code with a table of so many numbers for relative positions, and without one: with
nothing dropped, and where a share of the tokens is left (`--keep`) and the others were dropped before.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from thresher import native
from thresher.attention import Asked, Attended, Entries, TableBias
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


def run(route: type[Attended], asked: Asked, survivors: torch.Tensor | None = None) -> None:
    """Importance of all tokens, and context rows of the survivors."""
    attended = route(asked)
    attended.importance()
    attended.context(survivors)[-1, -1].item()  # which waits for the device


def texts_of(given: argparse.Namespace, length: int) -> PackedBatch:
    """So many that they have about the tokens that are wanted."""
    (packed,) = PackedBatch.from_padded(torch.ones(max(1, given.tokens // length), length).to(given.device))
    return packed


def asked_of(given: argparse.Namespace, packed: PackedBatch, dtype: torch.dtype) -> Asked:
    """Attention of random queries, keys and values."""
    qkv = torch.randn(packed.tokens, 3, given.heads, given.dim, device=given.device).to(dtype).unbind(1)
    return Asked(*qkv, packed, given.dim**-0.5)


def some(given: argparse.Namespace, packed: PackedBatch) -> torch.Tensor:
    """Places of the tokens that stay, drawn at random."""
    return (torch.rand(packed.tokens, device=given.device) < given.keep).nonzero().squeeze(1)


def measured(given: argparse.Namespace, length: int, dtype: torch.dtype, routes: Routes) -> dict[str, float]:
    """Milliseconds of each route, for texts of one length."""
    packed = texts_of(given, length)
    asked, survivors = asked_of(given, packed, dtype), some(given, packed)
    runs = {name: partial(run, route, asked, survivors) for name, route in routes.items()}
    return {name: 1000 * median(taken) for name, taken in side_by_side(runs, given.repeats).items()}


def with_bias(given: argparse.Namespace, length: int, dtype: torch.dtype, dropped: bool) -> dict[str, float]:
    """Milliseconds of native code without a table and with one, and the median of the rounds' ratios."""
    packed = texts_of(given, length)
    asked = asked_of(given, packed.at(some(given, packed)) if dropped else packed, dtype)
    entries = Entries(lambda differences: differences.remainder(given.bias)).reaching(packed)
    bias = TableBias(torch.randn(given.heads, given.bias), entries)
    runs = {"without": partial(run, Native, asked), "with": partial(run, Native, replace(asked, bias=bias))}
    taken = side_by_side(runs, given.repeats)
    ratio = median(b / a for a, b in zip(*taken.values(), strict=True))
    return {name: 1000 * median(seconds) for name, seconds in taken.items()} | {"ratio": ratio}


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
    parser.add_argument("--bias", type=int, default=0, help="numbers of a table for relative positions")
    parser.add_argument("--out", type=Path, help="file to write the figures to, in JSON")
    given = parser.parse_args()
    routes = routes_on(given.device)
    where = f"{torch.get_num_threads()} threads" if given.device == "cpu" else given.device
    columns = ["without", "with", "ratio"] if given.bias else list(routes)
    what = f", with {given.bias} numbers for relative positions ({native.instructions})" if given.bias else ""
    table = Table(title=f"{given.heads} heads of {given.dim}, {where}{what}: ms")
    for name in ("tokens", "texts", "in", *(["dropped"] if given.bias else []), *columns):
        table.add_column(name, justify="right")
    rows = []
    for length, precision in product(given.lengths, given.precision.split(",")):
        for dropped in (False, True) if given.bias else (False,):
            if given.bias:
                found = with_bias(given, length, DTYPES[precision], dropped)
            else:
                found = measured(given, length, DTYPES[precision], routes)
            rows.append({"length": length, "precision": precision, "dropped": dropped, "ms": found})
            before = [f"{1 - given.keep if dropped else 0:.0%}"] if given.bias else []
            cells = (f"{taken:.2f}" for taken in found.values())
            table.add_row(str(length), str(max(1, given.tokens // length)), precision, *before, *cells)
    Console().print(table)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
