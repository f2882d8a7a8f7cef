"""The benchmark's tables on a GPU: see gpu.sh, which sets up and calls this.

    THRESHER_DATA=folder python benchmarks/gpu.py --work runs/gpu --device cuda

Routes of attention are compared first, on texts of several lengths, and the models then take the one that was
faster at a length. `--tiny` runs the same steps on a tiny model, which says nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import HERE, IMDB, run, table_of

from thresher.attention import flex
from thresher.bench.run import bench
from thresher.reports import Bench

PRECISION = "bf16"


@dataclass(frozen=True)
class Size:
    """Layers and widths of the models, lengths and tokens of a batch for the routes, and the texts that are
    timed."""

    shapes: tuple[tuple[int, int], ...]
    lengths: tuple[int, ...]
    tokens: int
    texts: int
    repeats: int
    max_length: int


FULL = Size(((12, 768), (24, 1024)), (64, 128, 256, 384, 512, 1024), 16384, 512, 5, 384)
TINY = Size(((2, 64),), (32, 64), 256, 8, 1, 64)
Row = dict[str, Any]  # of attention.py's figures


def crossover(rows: list[Row]) -> float:
    """The length from which on FlexAttention was faster than the matrix, at every length measured."""
    found = math.inf
    for row in sorted(rows, key=lambda row: -row["length"]):
        if row["ms"].get("flex", math.inf) >= row["ms"]["matrix"]:
            break
        found = row["length"]
    return found


def compared(work: Path, size: Size, device: str) -> list[Row]:
    """Milliseconds of the routes, by length, for heads of BERT-base's kind."""
    file = work / "routes.json"
    options = ["--heads", 12, "--dim", 64, "--tokens", size.tokens, "--precision", PRECISION]
    command = [sys.executable, HERE / "attention.py", *options, "--device", device]
    run([*command, "--lengths", *size.lengths, "--out", file])
    found: list[Row] = json.loads(file.read_text())
    return found


def measured(shape: tuple[int, int], work: Path, data: Path, size: Size, device: str) -> Bench:
    """Make a random model of some layers and width, time it beside transformers, and write the report."""
    (layers, width), (file, text) = shape, IMDB
    model, source = work / f"{layers}x{width}", str(data / file)
    options = ["--layers", layers, "--width", width, "--max-length", size.max_length, "--device", device]
    command = [sys.executable, HERE / "random_model.py", *options]
    run([*command, "--eval", source, "--text", text, "--out", model])
    report = bench(
        str(model),
        source,
        [text],
        precisions=[PRECISION],
        engines=["torch"],
        max_length=size.max_length,
        texts=size.texts,
        repeats=size.repeats,
        memory=False,
        device=device,
    )
    report.write(work / f"{layers}x{width}.json")
    return report


def head_of(rows: list[Row], report: Bench) -> list[str]:
    """What the tables are of, and the routes."""
    told = ", ".join(f"{name} {report.versions[name]}" for name in ("thresher", "torch", "transformers"))
    taken = "no texts" if math.isinf(flex.LONG) else f"texts of {flex.LONG} tokens or more"
    names = list(rows[0]["ms"])
    cells = [[str(row["length"]), *(f"{row['ms'][name]:.2f}" for name in names)] for row in rows]
    return [
        f"# {report.device}",
        "",
        f"{told}; CUDA {torch.version.cuda}. FlexAttention takes {taken}; milliseconds of the routes:",
        "",
        f"| tokens of a text | {' | '.join(names)} |",
        "|---" * (1 + len(names)) + "|",
        *(f"| {' | '.join(row)} |" for row in cells),
        "",
    ]


def lines_of(report: Bench, shape: tuple[int, int]) -> list[str]:
    """The section of a model."""
    skipped = [f"\n{name}: {why}." for name, why in report.skipped.items()]
    return [f"## {shape[0]} x {shape[1]}", "", *table_of(report), *skipped, ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for models and figures")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    size, data = TINY if given.tiny else FULL, Path(os.environ["THRESHER_DATA"])
    given.work.mkdir(parents=True, exist_ok=True)
    rows = compared(given.work, size, given.device)
    flex.LONG = crossover(rows)  # type: ignore[assignment]
    lines: list[str] = []
    for shape in size.shapes:
        report = measured(shape, given.work, data, size, given.device)
        lines = [*(lines or head_of(rows, report)), *lines_of(report, shape)]
        (given.work / "figures.md").write_text("\n".join(lines))  # so that what was measured stays
    print("\n".join(lines))


if __name__ == "__main__":
    main()
