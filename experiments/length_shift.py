"""Pruning learned on short texts, met by long ones: what is lost, by length (a test of the paper's).

    THRESHER_DATA=folder python experiments/length_shift.py imdb --methods ours topk --budget 0.3

Base is fine-tuned on texts of all lengths; pruning is trained on those of at most the median length, and the
model is measured on the test texts up to their median, up to their third quartile, and beyond. One JSON per
run goes to --results; a run whose line is there is not run again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bases import base, beside_base, done, portable
from quality_at_budget import METHODS, training
from results import get, put
from samples import data, write
from tasks import TASKS, arguments, script
from thresher.data import load_examples
from thresher.inputs.text import TextEncoder, load_tokenizer
from thresher.show.progress import stages
from thresher.training import Data, Job, TrainingSettings
from thresher.training.recipes import prune


def lengths(texts: Any, encoder: TextEncoder) -> np.ndarray:
    return np.array([len(ids) for ids in encoder.encode_columns(texts)["input_ids"]])


def shorter(name: str, files: Data, encoder: TextEncoder, work: Path) -> Data:
    """The training texts of at most the median length, as a file."""
    file = work / f"{name}-short.jsonl"
    if not file.exists():
        texts = load_examples(files.train, files.text, files.label)
        tokens = lengths(texts, encoder)
        write(file, texts.select(np.flatnonzero(tokens <= np.median(tokens))), TASKS[name])
    return replace(files, train=str(file), eval=None)  # of long texts it shall not even know that there are


def by_length(start: Path, folder: Path, files: Data) -> list[dict[str, Any]]:
    """Base and pruned model on the test texts of each range of lengths."""
    model, encoder, task, whole = beside_base(start, folder, files.eval, files)
    found = whole.predict(model, encoder)
    quartiles = np.quantile(found.lengths, [0, 0.5, 0.75, 1])
    ranges = np.searchsorted(quartiles[1:-1], found.lengths)  # a text as long as a quartile is below it
    groups = []
    for place, name in enumerate(("up to the median", "up to the third quartile", "longer")):
        index = np.flatnonzero(ranges == place)
        some, logits = whole.select(index), found.logits[index]
        drop = some.estimate_drop(task, logits)
        groups.append(
            {
                "name": name,
                "tokens": [float(quartiles[place]), float(quartiles[place + 1])],
                "texts": len(index),
                "base": some.base_quality(task),
                "pruned": some.quality(task, logits),
                "drop": drop.points,
                "drop_interval": drop.interval,
                "flops_ratio": float(found.flops[index].sum() / found.dense_flops[index].sum()),
            }
        )
    return groups


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--methods", nargs="+", default=["ours", "topk"], choices=set(METHODS) - {"shallow"})
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--budget", type=float, default=0.3)
    given = parser.parse_args(argv)
    task, work = TASKS[given.task], given.work
    for seed in given.seeds:
        start = base(given.task, seed, work, given.encoder)
        tokenizer = load_tokenizer(start)
        files = data(given.task, work)
        short = shorter(given.task, files, TextEncoder(tokenizer, task.max_length), work)
        for method in given.methods:
            name = f"length-shift-{given.task}-{method}-{given.budget:g}-seed{seed}"
            # As many steps as of all texts.
            longer = replace(task, epochs=2 * task.epochs)
            settings = TrainingSettings(budget=given.budget, seed=seed, **training(method, longer))
            if done(get(given.results, name), name, settings):
                continue
            job = Job(str(start), short, work / name, settings, task.max_length)
            with stages() as stage:
                report = prune(job.go_on(), METHODS[method], stage)
            what = {"task": given.task, "method": method, "seed": seed, "budget": given.budget}
            groups = by_length(start, job.out, files)
            put(given.results, name, portable(report) | {"length_shift": what, "groups": groups})
            for group in groups:
                print(name, group["name"], round(group["drop"], 2), round(group["flops_ratio"], 3))


if __name__ == "__main__":
    script(main)
