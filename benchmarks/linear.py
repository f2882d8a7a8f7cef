"""Linear layers by our own code beside oneDNN's: milliseconds, and ours as a share of the processor's peak.

    python benchmarks/linear.py --rows 32 256 3072

Rounding before and what comes after (size, bias, GELU where outputs are four times the inputs) are included.
The peak is that of multiply-adds in registers; AMX has no such figure.
"""

from __future__ import annotations

import argparse
from functools import partial
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from thresher import native
from thresher.engines.layers.int8 import Int8Linear
from thresher.engines.layers.native import NativeLinear
from thresher.engines.layers.packed import PackedLinear
from thresher.families import GeluLinear
from thresher.inference.speed import side_by_side

SHAPES = [
    (384, 384),
    (384, 1152),
    (384, 1536),
    (1536, 384),
    (768, 768),
    (768, 2304),
    (768, 3072),
    (3072, 768),
]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 256, 3072])
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    if not (precisions := [x for x in ("fp32", "bf16", "int8") if native.has_linears(x)]):
        parser.error("the native code was not built")
    peaks = {x: native.peak(x, seconds=1.0) for x in precisions}
    print(f"{native.instructions}, {torch.get_num_threads()} threads")
    head = [(f"{x}, oneDNN", f"{x}, ours", "of peak") for x in precisions]
    table = Table("rows", "inputs", "outputs", *(name for names in head for name in names))
    for rows in asked.rows:
        for inputs, outputs in SHAPES:
            cells = [
                cell
                for x in precisions
                for cell in cells_of(x, rows, inputs, outputs, peaks[x], asked.rounds)
            ]
            table.add_row(*(f"{x:,}" for x in (rows, inputs, outputs)), *cells)
    Console(width=140).print(table)


def cells_of(
    precision: str, rows: int, inputs: int, outputs: int, peak: float | None, rounds: int
) -> tuple[str, ...]:
    """oneDNN's milliseconds, ours, and our share of the peak."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    linear: nn.Module = nn.Linear(inputs, outputs, dtype=dtype).requires_grad_(False)
    linear = GeluLinear.of(linear) if outputs == 4 * inputs else linear
    theirs = {"fp32": PackedLinear, "bf16": PackedLinear, "int8": Int8Linear}[precision](linear)
    values = torch.randn(rows, inputs, dtype=dtype)
    runs = {"oneDNN": partial(theirs, values), "ours": partial(NativeLinear(linear, precision), values)}
    taken = {name: median(found) for name, found in side_by_side(runs, rounds).items()}
    share = "" if peak is None else f"{2 * rows * inputs * outputs / taken['ours'] / peak:.0%}"
    return f"{1e3 * taken['oneDNN']:.2f}", f"{1e3 * taken['ours']:.2f}", share


if __name__ == "__main__":
    main()
