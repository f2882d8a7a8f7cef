"""Quality at a FLOPs budget: learned thresholds beside top-k and the free baseline.

    THRESHER_DATA=folder python experiments/quality_at_budget.py sst2 --seeds 0 1 2

One JSON per finished run goes to experiments/results; a run whose JSON is there is not run again,
and an interrupted one goes on where it stopped. Fine-tuned bases and pruned models go to --work.

THRESHER_DATA holds these files (columns in brackets); the same data is on the hub as named:

    sst2/train.tsv, sst2/dev.tsv (sentence, label)           nyu-mll/glue, sst2
    ag_news_10k/train.tsv, ag_news_10k/test.tsv (text, label)  fancyzhx/ag_news; 10,000 of its train rows
    imdb/train.jsonl.gz, imdb/test.jsonl.gz (text, label)     stanfordnlp/imdb
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from thresher.config import PruningConfig
from thresher.data import RowWriter, load_examples
from thresher.demo import encoder_folder
from thresher.measure.report import write_json
from thresher.training import Data, Job, TrainingSettings
from thresher.training.recipes import finetune, prune

RESULTS = Path(__file__).parent / "results"


@dataclass
class Task:
    """One data set: files, columns, and how long to train."""

    train: str
    test: str
    text: str
    max_length: int
    base_epochs: float
    soft_epochs: float
    hard_epochs: float
    train_rows: int | None = None  # a sample, where train is larger than need be
    test_rows: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


TASKS = {
    "sst2": Task("sst2/train.tsv", "sst2/dev.tsv", "sentence", 128, 1.0, 0.35, 0.35),
    "ag_news": Task("ag_news_10k/train.tsv", "ag_news_10k/test.tsv", "text", 128, 2.0, 1.0, 1.0),
    "imdb": Task("imdb/train.jsonl.gz", "imdb/test.jsonl.gz", "text", 256, 2.0, 1.0, 1.0, 5000, 5000),
}
BUDGETS = {"sst2": 0.55, "ag_news": 0.48, "imdb": 0.48}
# Top-k cannot reach half of a six-layer model's FLOPs behind three dense layers, so it gets one.
METHODS = {
    "threshold": PruningConfig("threshold"),
    "threshold-paper": PruningConfig("threshold", {"gate": "paper"}),
    "topk": PruningConfig("topk", {"dense_layers": 1}),
    "last-layer": PruningConfig("last-layer"),
    "none": PruningConfig("none"),  # base, trained on for as long
}


def sample(source: Path, rows: int | None, file: Path) -> str:
    """`rows` rows of a file, drawn with a fixed seed and written to `file`; the file itself where None."""
    if rows is None:
        return str(source)
    if not file.exists():
        examples = load_examples(str(source), ["text"], "label").remove_columns("line")
        chosen = np.random.default_rng(0).permutation(len(examples))[:rows]
        with RowWriter(partial := file.with_name("partial-" + file.name)) as writer:
            for row in examples.select(chosen):
                writer.write(row)
        partial.replace(file)
    return str(file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument(
        "--methods", nargs="+", default=["threshold", "topk", "last-layer", "none"], choices=METHODS
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=float)
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING=NUMBER", help="of TrainingSettings")
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--encoder", default=None, help="default: the MiniLM of the extra `demo`")
    given = parser.parse_args()
    task, data_folder = TASKS[given.task], Path(os.environ["THRESHER_DATA"])
    encoder = given.encoder or str(encoder_folder())
    budget = given.budget or BUDGETS[given.task]
    changed = {name: float(value) for name, value in (pair.split("=") for pair in given.set)}
    given.work.mkdir(parents=True, exist_ok=True)
    train = sample(data_folder / task.train, task.train_rows, given.work / f"{given.task}-train.jsonl")
    test = sample(data_folder / task.test, task.test_rows, given.work / f"{given.task}-test.jsonl")
    data = Data(train, [task.text], test, "label")

    def job(model: str, out: Path, settings: TrainingSettings) -> Job:
        return Job(model, data, out, settings, task.max_length).go_on()

    for seed in given.seeds:
        base = given.work / f"{given.task}-base-{seed}"
        settings = TrainingSettings(
            soft_epochs=0.0,
            hard_epochs=task.base_epochs,
            learning_rate=5e-5,
            distill=0.0,
            seed=seed,
            evaluations=3,
        )
        if not _done(base / "report.json", settings):
            finetune(job(encoder, base, settings))
        for method in given.methods:
            name = "-".join([given.task, method, f"{budget:g}", *sorted(given.set), f"seed{seed}"])
            result, out = RESULTS / f"{name}.json", given.work / name
            settings = TrainingSettings(
                soft_epochs=task.soft_epochs,
                hard_epochs=task.hard_epochs,
                budget=budget,
                seed=seed,
                **changed,
            )
            if method == "last-layer":  # changes no output, so there is nothing to train
                settings.soft_epochs = settings.hard_epochs = 0.0
            if _done(result, settings):
                continue
            report = prune(job(str(base), out, settings), METHODS[method])
            report["base_seconds"] = json.loads((base / "report.json").read_text())["seconds"]
            write_json(_portable(report), result)
            print(result.stem, report["quality"], round(report["flops_ratio"], 4), flush=True)


def _done(report: Path, settings: TrainingSettings) -> bool:
    """Whether a run has its report already; refuses one that was made with other settings."""
    if not report.exists():
        return False
    if settings.soft_epochs + settings.hard_epochs == 0:
        return True  # nothing was trained
    stored = json.loads(report.read_text())["settings"]
    if other := [name for name, value in asdict(settings).items() if stored.get(name) != value]:
        raise SystemExit(
            f"{report} was made with another {other[0]}: {stored.get(other[0])}. Delete it to run again."
        )
    return True


def _portable(report: dict[str, Any]) -> dict[str, Any]:
    """Without the paths of the machine that ran it."""
    data = {
        key: Path(value).name if key in ("train", "eval") else value for key, value in report["data"].items()
    }
    return report | {"model": Path(report["model"]).name, "out": Path(report["out"]).name, "data": data}


if __name__ == "__main__":
    main()
