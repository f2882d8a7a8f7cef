"""Linear layers by our own code beside oneDNN's, in bfloat16 and int8: milliseconds.

python benchmarks/linear.py --rows 32 256 3072
"""

from __future__ import annotations

import argparse
from functools import partial
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from thresher import native
from thresher.engines.layers.int8 import Int8Linear
from thresher.engines.layers.native import NativeLinear
from thresher.engines.layers.packed import PackedLinear
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
    if not (native.has_linears("bf16") and native.has_linears("int8")):
        parser.error("this machine has neither AMX nor AVX-512 BF16, or the native code was not built")
    table = Table("rows", "inputs", "outputs", "bf16, oneDNN", "bf16, ours", "int8, oneDNN", "int8, ours")
    for rows in asked.rows:
        for inputs, outputs in SHAPES:
            linear = torch.nn.Linear(inputs, outputs, dtype=torch.bfloat16).requires_grad_(False)
            layers = {
                "bf16, oneDNN": PackedLinear(linear),
                "bf16, ours": NativeLinear(linear, "bf16"),
                "int8, oneDNN": Int8Linear(linear),
                "int8, ours": NativeLinear(linear, "int8"),
            }
            values = torch.randn(rows, inputs, dtype=torch.bfloat16)
            runs = {name: partial(layer, values) for name, layer in layers.items()}
            shown = (f"{1e3 * median(taken):.2f}" for taken in side_by_side(runs, asked.rounds).values())
            table.add_row(str(rows), str(inputs), str(outputs), *shown)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
