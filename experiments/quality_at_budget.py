"""Quality at a FLOPs budget: our method, the paper's, and the baselines, over tasks and seeds.

    THRESHER_DATA=folder python experiments/quality_at_budget.py sst2 --methods ours paper topk --seeds 0 1 2
    THRESHER_DATA=folder python experiments/quality_at_budget.py sst2 --methods ours --max-drop 1

A line for each finished run goes to --results; a run whose line is there is not run again,
and an interrupted one goes on where it stopped. Fine-tuned bases and pruned models go to --work.
"""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bases import base, done, portable
from results import get, put
from samples import data, parts
from tasks import TASKS, Task, arguments, script
from thresher.config import PruningConfig
from thresher.pruners import PRUNERS
from thresher.show.progress import stages
from thresher.training import Job, TrainingSettings
from thresher.training.recipes import prune

# Behind three dense layers, SpAtten's rule, top-k cannot reach half of a six-layer model's FLOPs; behind one
# not a fifth. So it and random drops get none.
METHODS = {
    "ours": PruningConfig(),
    "attention": PruningConfig("threshold", {"score": "attention"}),  # as ours, on attention received alone
    "paper": PruningConfig("threshold", {"score": "attention", "gate": "paper"}, suffix=0),
    "predictor": PruningConfig("threshold", {"score": "hidden"}),
    "manual": PruningConfig("threshold", {"score": "attention", "learned": False}),
    "topk": PruningConfig("topk", {"dense_layers": 0}),
    "random": PruningConfig("random", {"dense_layers": 0}),
    "last-layer": PruningConfig("none", prefix_only_at_end=True),
    "shallow": PruningConfig("none", prefix_only_at_end=True),  # fewer layers, which learn from base
    "none": PruningConfig("none"),  # base, trained on for as long
}


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


def training(method: str, task: Task) -> dict[str, Any]:
    """What a method is trained with, of `TrainingSettings`."""
    found: dict[str, Any] = {"soft_epochs": task.epochs, "hard_epochs": task.hard_epochs or task.epochs}
    found |= {"learning_rate": task.rate, "metric": task.metric}
    if method == "last-layer":  # changes no output, so there is nothing to train
        found |= {"soft_epochs": 0.0, "hard_epochs": 0.0}
    if method != "ours":  # what nobody else does
        found |= {"saliency": False}
    if method == "shallow":  # it cannot be told what base's hidden states are
        found |= {"distill_hidden": 0.0}
    return found


def setting(text: str) -> str:
    """A setting that is not asked for otherwise, and its value; else argparse says what is wrong."""
    name, _, value = text.partition("=")
    names = {field.name for field in fields(TrainingSettings)} - {"budget", "max_drop", "seed"}
    if name not in names:
        raise ArgumentTypeError(f"'{name}' is none of {', '.join(sorted(names))}")
    try:
        json.loads(value)
    except ValueError as error:
        raise ArgumentTypeError(f"'{value}' of {name} is no JSON") from error
    return text


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--methods", nargs="+", default=["ours"], choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--budget", nargs="+", type=float, default=[0.4], help="several make a ladder")
    how.add_argument("--max-drop", type=float, help="points that may be lost, instead of a budget")
    parser.add_argument(
        "--set", nargs="+", default=[], type=setting, metavar="SETTING=JSON", help="of TrainingSettings"
    )
    given = parser.parse_args(argv)
    task, work = TASKS[given.task], given.work
    changed = {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in given.set)}
    bad = [method for method in given.methods if not PRUNERS[METHODS[method].pruner].ladder]
    if given.max_drop is not None and bad:
        parser.error(f"--max-drop is for thresholds, which {bad[0]} has none of.")
    budget, wanted = None, f"drop{given.max_drop}"
    if given.max_drop is None:
        budget = given.budget if len(given.budget) > 1 else given.budget[0]
        wanted = "-".join(f"{b:g}" for b in given.budget)
    files, part = data(given.task, work), None
    if given.max_drop is not None:  # is chosen on texts that base has not seen
        part, unseen = parts(given.task, work)
        files = replace(files, train=part or files.train, held_out=unseen)
    for seed in given.seeds:
        start = base(given.task, seed, work, given.encoder, part)
        for method in given.methods:
            name = "-".join([given.task, method, wanted, *sorted(given.set), f"seed{seed}"])
            out, model, deep = work / name, start, 1.0
            trained = training(method, task) | {"seed": seed} | changed
            settings = TrainingSettings(budget=budget, max_drop=given.max_drop, **trained)
            if done(get(given.results, name), name, settings):
                continue
            teacher = None
            if method == "shallow":
                teacher, model = str(start), work / f"{name}-start"
                deep = shallower(start, min(given.budget), model)
            job = Job(str(model), files, out, settings, task.max_length, teacher=teacher)
            with stages() as stage:
                report = prune(job.go_on(), METHODS[method], stage)
            report = replace(report, flops_ratio=report.flops_ratio * deep)
            what = {"task": given.task, "method": method, "seed": seed, "budget": budget}
            what |= {"max_drop": given.max_drop, "changed": changed}
            made = start / "report.json"
            seconds = json.loads(made.read_text())["seconds"] if made.exists() else 0.0
            put(given.results, name, portable(report) | {"experiment": what, "base_seconds": seconds})
            print(name, report.quality, round(report.flops_ratio, 4), flush=True)


if __name__ == "__main__":
    script(main)
