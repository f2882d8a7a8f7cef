"""Finished models on a second labelled file, where a task has one that is larger than dev: MRPC and STS-B.

    THRESHER_DATA=folder python experiments/second_file.py mrpc

MRPC's dev has 408 pairs, on which one model's accuracy is known to within a point and a half; its test file
has 1,725. Nothing is chosen on it. Measures every model that quality_at_budget.py left in --work, and writes
second_file-TASK to --results; a model that has been measured is not measured again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bases import beside_base
from results import get, load, put
from tasks import TASKS, Task, arguments, data_folder, script


def measure(folder: Path, start: Path, file: str, task: Task) -> dict[str, Any]:
    """What the model at each of its budgets loses on the file, against base."""
    model, encoder, labels, examples = beside_base(start, folder, file, task)
    points = {}
    for budget in model.budgets or (None,):
        if budget is not None:
            model.set_budget(budget)
        found = examples.predict(model, encoder)
        drop = examples.estimate_drop(labels, found.logits)
        points[str(budget)] = {
            "base": examples.base_quality(labels),
            "pruned": examples.quality(labels, found.logits),
            "lost": drop.points,
            "interval": drop.interval,
            "agreement": labels.agreement(found.logits, examples.base),
        }
    return {"texts": len(examples), "points": points}


def main(argv: list[str] | None = None) -> None:
    given = arguments(__doc__).parse_args(argv)
    task = TASKS[given.task]
    if task.second is None:
        raise SystemExit(f"{given.task} has no second file.")
    name = f"second_file-{given.task}"
    report = get(given.results, name) or {"task": given.task, "models": {}}
    for run, made in load(given.results).items():
        if not run.startswith(f"{given.task}-"):
            continue
        folder = given.work / run
        what, written = made["experiment"], folder / "report.json"
        if what["max_drop"] is not None or not written.exists():
            continue
        if json.loads(written.read_text())["seconds"] != made["seconds"]:
            continue  # the folder is of another run
        if report["models"].get(run, {}).get("seconds") == made["seconds"]:
            continue  # it has been measured
        start = given.work / f"{given.task}-{task.max_length}-base-{what['seed']}"
        found = measure(folder, start, str(data_folder() / task.second), task)
        report["models"][run] = {"seconds": made["seconds"]} | found
        put(given.results, name, report)
        for budget, point in found["points"].items():
            lost = "{:.2f} lost ({:.2f} to {:.2f})".format(point["lost"], *point["interval"])
            print(f"{run} at {budget}: {lost}", flush=True)


if __name__ == "__main__":
    script(main)
