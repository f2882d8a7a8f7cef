"""Quality at a FLOPs budget: our method, the paper's, and the baselines, over tasks and seeds.

    THRESHER_DATA=folder python experiments/quality_at_budget.py sst2 --methods ours paper topk --seeds 0 1 2

One JSON per finished run goes to experiments/results; a run whose JSON is there is not run again,
and an interrupted one goes on where it stopped. Fine-tuned bases and pruned models go to --work.

THRESHER_DATA holds these files (columns in brackets); the same data is on the hub as named:

    sst2/train.tsv, dev.tsv (sentence, label)                      nyu-mll/glue, sst2
    mrpc/train.tsv, dev.tsv (sentence1, sentence2, label)          nyu-mll/glue, mrpc
    stsb/train.tsv, dev.tsv (sentence1, sentence2, score)          nyu-mll/glue, stsb
    rte/train.tsv, dev.tsv (sentence1, sentence2, label)           nyu-mll/glue, rte
    cola/train.tsv, dev.tsv (sentence, label)                      nyu-mll/glue, cola
    qqp/train_9k.tsv, heldout_1k.tsv (question1, question2, label)  nyu-mll/glue, qqp; 10,000 rows of train
    mnli/train_10k.tsv, dev_matched.tsv (premise, hypothesis, label)  nyu-mll/glue, mnli; 10,000 rows of train
    ag_news_10k/train.tsv, test.tsv (text, label)                  fancyzhx/ag_news; 10,000 rows of train
    imdb/train.jsonl.gz, test.jsonl.gz (text, label)               stanfordnlp/imdb
    movie_reviews/all.jsonl.gz (text, label, fold)                 nltk/nltk_data, movie_reviews, in ten folds
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForSequenceClassification, AutoTokenizer

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
    text: list[str]
    max_length: int
    base_epochs: float
    epochs: float  # of the soft stage, and again of the hard one
    label: str = "label"
    train_rows: int | None = None  # a sample, where the file is larger than need be
    test_rows: int | None = None
    train_folds: tuple[int, ...] | None = None  # where one file holds all
    test_folds: tuple[int, ...] | None = None


PAIR = ["sentence1", "sentence2"]
MOVIES = "movie_reviews/all.jsonl.gz"
TASKS = {
    "sst2": Task("sst2/train.tsv", "sst2/dev.tsv", ["sentence"], 128, 1.0, 0.35),
    "mrpc": Task("mrpc/train.tsv", "mrpc/dev.tsv", PAIR, 128, 6.0, 3.0),
    "stsb": Task("stsb/train.tsv", "stsb/dev.tsv", PAIR, 128, 4.0, 2.0, "score"),
    "ag_news": Task("ag_news_10k/train.tsv", "ag_news_10k/test.tsv", ["text"], 128, 2.0, 1.0),
    "imdb": Task(
        "imdb/train.jsonl.gz",
        "imdb/test.jsonl.gz",
        ["text"],
        384,
        2.0,
        1.0,
        train_rows=5000,
        test_rows=5000,
    ),
    "rte": Task("rte/train.tsv", "rte/dev.tsv", PAIR, 256, 6.0, 2.0),
    "cola": Task("cola/train.tsv", "cola/dev.tsv", ["sentence"], 128, 4.0, 2.0),
    "qqp": Task("qqp/train_9k.tsv", "qqp/heldout_1k.tsv", ["question1", "question2"], 128, 3.0, 1.5),
    "mnli": Task("mnli/train_10k.tsv", "mnli/dev_matched.tsv", ["premise", "hypothesis"], 128, 3.0, 1.5),
    "movie_reviews": Task(
        MOVIES, MOVIES, ["text"], 512, 4.0, 2.0, train_folds=tuple(range(8)), test_folds=(8, 9)
    ),
}
# Behind three dense layers top-k cannot reach half of a six-layer model's FLOPs: it and random drops get one.
METHODS = {
    "ours": PruningConfig(),
    "attention": PruningConfig("threshold", {"score": "attention"}),  # as ours, on attention received alone
    "paper": PruningConfig("threshold", {"score": "attention", "gate": "paper"}, suffix=0),
    "predictor": PruningConfig("threshold", {"score": "hidden"}),
    "manual": PruningConfig("threshold", {"score": "attention", "learned": False}),
    "topk": PruningConfig("topk", {"dense_layers": 1}),
    "random": PruningConfig("random", {"dense_layers": 1}),
    "last-layer": PruningConfig("last-layer"),
    "shallow": PruningConfig("last-layer"),  # fewer layers, which learn from base
    "none": PruningConfig("none"),  # base, trained on for as long
}


def sample(source: Path, rows: int | None, folds: tuple[int, ...] | None, file: Path) -> str:
    """Some rows of a file, by their fold or drawn with a fixed seed, as `file`; the file itself where all."""
    if rows is None and folds is None:
        return str(source)
    if not file.exists():
        columns = ["text"] if folds is None else ["text", "fold"]
        examples = load_examples(str(source), columns, "label").remove_columns("line")
        chosen = np.random.default_rng(0).permutation(len(examples))
        if folds is not None:
            chosen = np.flatnonzero(np.isin(np.array(examples["fold"][:], dtype=int), folds))
        with RowWriter(partial := file.with_name("partial-" + file.name)) as writer:
            for row in examples.select(chosen[:rows]):
                writer.write({"text": row["text"], "label": row["label"]})
        partial.replace(file)
    return str(file)


def shallower(base: Path, budget: float, out: Path) -> float:
    """Write base's first layers alone to `out`, as many as the budget allows; give the share they are."""
    model = AutoModelForSequenceClassification.from_pretrained(base)
    whole = model.config.num_hidden_layers
    encoder = getattr(model, model.base_model_prefix).encoder
    last = 0.25  # of a layer's FLOPs, about, are left of the last one: queries, keys and values of all tokens
    count = next(n for n in range(whole, 0, -1) if n == 1 or (n - 1 + last) / whole <= budget)
    encoder.layer = encoder.layer[:count]
    model.config.num_hidden_layers = count
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(base).save_pretrained(out)
    return count / whole


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=["ours"], choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", nargs="+", type=float, default=[0.4], help="several make a ladder")
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING=NUMBER", help="of TrainingSettings")
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--encoder", default=None, help="default: the MiniLM of the extra `demo`")
    given = parser.parse_args()
    task, data_folder, work = TASKS[given.task], Path(os.environ["THRESHER_DATA"]), given.work
    encoder = given.encoder or str(encoder_folder())
    changed = {name: json.loads(value) for name, value in (pair.split("=") for pair in given.set)}
    work.mkdir(parents=True, exist_ok=True)
    files = [
        sample(data_folder / file, rows, folds, work / f"{given.task}-{part}.jsonl")
        for part, file, rows, folds in (
            ("train", task.train, task.train_rows, task.train_folds),
            ("test", task.test, task.test_rows, task.test_folds),
        )
    ]
    data = Data(files[0], task.text, files[1], task.label)
    budget = given.budget if len(given.budget) > 1 else given.budget[0]

    for seed in given.seeds:
        base = work / f"{given.task}-{task.max_length}-base-{seed}"
        settings = TrainingSettings(
            soft_epochs=0.0,
            hard_epochs=task.base_epochs,
            learning_rate=5e-5,
            distill=0.0,
            seed=seed,
            evaluations=3,
            dropout=False,  # which halves the time on CPUs
        )
        if not _done(base / "report.json", settings):
            finetune(Job(encoder, data, base, settings, task.max_length).go_on())
        for method in given.methods:
            budgets = "-".join(f"{b:g}" for b in given.budget)
            name = "-".join([given.task, method, budgets, *sorted(given.set), f"seed{seed}"])
            result, out, model, deep = RESULTS / f"{name}.json", work / name, base, 1.0
            settings = TrainingSettings(
                soft_epochs=task.epochs, hard_epochs=task.epochs, budget=budget, seed=seed, **changed
            )
            if method == "last-layer":  # changes no output, so there is nothing to train
                settings.soft_epochs = settings.hard_epochs = 0.0
            if _done(result, settings):
                continue
            if method == "shallow" and not (base / "outputs").exists():
                raise SystemExit("A shallower model learns from base: run another method first.")
            if method == "shallow":
                model = work / f"{name}-start"
                deep = shallower(base, min(given.budget), model)
            job = Job(str(model), data, out, settings, task.max_length).go_on()
            job.outputs, job.dense_too = base / "outputs", False
            report = prune(job, METHODS[method])
            report["experiment"] = {"task": given.task, "method": method, "seed": seed, "budget": budget}
            report["experiment"] |= {"changed": changed}
            report["flops_ratio"] *= deep
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
