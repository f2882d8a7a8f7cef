"""Pruning, precision and distillation together: quality, operations and wall clock of each combination.

    THRESHER_DATA=folder python experiments/operations.py imdb runs/imdb-ours-0.25-seed0 runs/imdb-none-...

Measures folders that other experiments left (FOLDER@0.3: a ladder, at that budget), each in fp32, bf16 and
int8, beside transformers in fp32 (padded, sorted by length). Bit operations weigh a multiply-add by the bits
of both its sides: int8 is of linear layers alone, attention is then in bf16 or, without AMX, in fp32. Writes
operations-TASK to --results; what it holds of a folder is not measured again: delete it there where the
model was made anew. Leave the machine alone while it runs.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from results import get, put
from samples import data
from tasks import arguments, script
from thresher.data import load_examples
from thresher.engines import TorchEngine
from thresher.inference.load import CALIBRATION, make_ready, open_model
from thresher.inference.predict import Predictions, predict
from thresher.inference.speed import speeds
from thresher.model import PrunedModel
from thresher.reports import versions
from thresher.store import dense_model

BITS = {"fp32": 32, "bf16": 16, "int8": 8}  # of linear layers


def operations(model: PrunedModel, found: Predictions) -> tuple[float, float]:
    """FLOPs of linear layers and of attention for all texts, of a model that attends to everything."""
    linear = attention = 0.0
    before, none = torch.from_numpy(found.lengths).double(), torch.zeros(1)
    for index, kept in enumerate(torch.from_numpy(found.kept).double()):
        shape = model.family.shape(index)
        linear += float(shape.flops(before, kept, none, none).sum())
        attention += float(shape.flops(none, none, before * before, before * kept).sum())
        before = kept
    assert np.isclose(linear + attention, found.flops.sum())
    return linear, attention


def measure(folder: str, precision: str, files: Any, timed: int) -> dict[str, Any]:
    folder, _, budget = folder.partition("@")
    model, encoder, task = open_model(folder)
    if budget:
        model.set_budget(float(budget))
    texts = load_examples(files.eval, files.text, files.label)
    rows = encoder.encode_examples(texts)
    some = np.random.default_rng(0).permutation(len(rows))[:CALIBRATION]
    make_ready(model, encoder, rows.select(some)[:], precision)
    found = predict(model, encoder, rows)
    linear, attention = operations(model, found)
    attended = 8 * TorchEngine.dtype_of(precision).itemsize  # bits
    return {
        "versions": versions(),
        "layers": model.family.layers,
        "quality": task.quality(found.logits, task.encode_all(texts, files.eval)),
        "flops": linear + attention,
        "flops_ratio": found.flops_ratio,
        "bit_operations": linear * BITS[precision] ** 2 + attention * attended**2,
        "speed": asdict(speeds(model, dense_model(folder, "fp32"), encoder, texts, texts=timed)),
    }


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--texts", type=int, default=512, help="for the clock, most")
    given = parser.parse_args(argv)
    run = f"operations-{given.task}"
    report = get(given.results, run) or {"task": given.task, "models": {}}
    files = data(given.task, given.work)
    for folder in given.folders:
        rows = report["models"].setdefault(Path(folder).name, {})
        for precision in BITS:
            if precision not in rows:
                rows[precision] = measure(folder, precision, files, given.texts)
                put(given.results, run, report)
    for name, rows in report["models"].items():
        for precision, row in rows.items():
            rates = row["speed"]
            print(
                f"{name} {precision}: {next(iter(row['quality'].values())):.2f}, "
                f"{row['flops'] / 1e12:.2f} TFLOPs, {row['bit_operations'] / 1e15:.2f} P bit operations, "
                f"{rates['thresher']['texts_per_second']:.0f} texts/s, "
                f"transformers {rates['transformers']['texts_per_second']:.0f}"
            )


if __name__ == "__main__":
    script(main)
