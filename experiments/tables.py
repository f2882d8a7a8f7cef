"""Tables and the figure of experiments/README.md, from the JSON of finished runs.

    python experiments/tables.py

Prints one Markdown table a task and writes experiments/quality_at_budget.png. Runs with settings that
were changed by --set stand in rows of their own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

HERE = Path(__file__).parent
FIGURE = HERE / "quality_at_budget.png"
Runs = dict[tuple[str, str, float], list[dict[str, Any]]]


def load() -> Runs:
    """Finished runs by task, method and budget; a ladder's rungs each under their own budget."""
    found: Runs = defaultdict(list)
    for file in sorted((HERE / "results").glob("*.json")):
        report = json.loads(file.read_text())
        if "experiment" not in report:
            continue  # of an earlier form of the script
        what, metric = report["experiment"], report["metric"]
        name = " ".join([what["method"], *(f"{key}={value:g}" for key, value in what["changed"].items())])
        rungs = report["ladder"] if len(report.get("ladder", [])) > 1 else []
        if rungs:
            name += ", ladder"
        points = rungs or [
            {
                "budget": what["budget"],
                "flops_ratio": report["flops_ratio"],
                "quality": report["quality"]["pruned"],
            }
        ]
        for point in points:
            found[what["task"], name, point["budget"]].append(
                {
                    "seed": what["seed"],
                    "metric": metric,
                    "base": report["quality"]["base"][metric],
                    "pruned": point["quality"][metric],
                    "ratio": point["flops_ratio"],
                    "minutes": report["seconds"] / 60,
                }
            )
    return found


def spread(values: list[float], digits: int = 2) -> str:
    """Mean, and standard deviation where there are several."""
    text = f"{mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({stdev(values):.{digits}f})"


def table(task: str, runs: Runs) -> str:
    """One task, best kept quality first within a budget."""
    mine = {key: value for key, value in runs.items() if key[0] == task}
    metric = next(iter(mine.values()))[0]["metric"]
    lines = [
        f"### {task}, {metric}\n",
        "| method | budget | FLOPs ratio | base | pruned | lost | seeds | minutes a run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (_, method, budget), some in sorted(mine.items(), key=lambda item: (-item[0][2], _lost(item[1]))):
        cells = [
            method,
            f"{budget:g}",
            spread([run["ratio"] for run in some], 3),
            spread([run["base"] for run in some]),
            spread([run["pruned"] for run in some]),
            spread([run["base"] - run["pruned"] for run in some]),
            " ".join(str(run["seed"]) for run in some),
            f"{mean(run['minutes'] for run in some):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _lost(some: list[dict[str, Any]]) -> float:
    return mean(run["base"] - run["pruned"] for run in some)


def figure(runs: Runs) -> None:
    """Points of quality lost against the FLOPs ratio, a panel for each task and a line for each method."""
    tasks = sorted({task for task, _, _ in runs})
    methods = sorted({method for _, method, _ in runs})
    colours = dict(zip(methods, pyplot.get_cmap("tab10").colors * 3, strict=False))
    canvas, panels = pyplot.subplots(1, len(tasks), figsize=(3.4 * len(tasks), 3.2), squeeze=False)
    for panel, task in zip(panels[0], tasks, strict=True):
        for method in methods:
            points = sorted(
                (mean(run["ratio"] for run in some), -_lost(some))
                for (t, m, _), some in runs.items()
                if (t, m) == (task, method)
            )
            if points:
                panel.plot(*zip(*points, strict=True), "o-", label=method, color=colours[method], ms=4)
        panel.axhline(0, color="grey", lw=0.5)
        panel.set(title=task, xlabel="FLOPs ratio")
    panels[0][0].set_ylabel("quality against base, points")
    handles = {
        label: handle
        for panel in panels[0]
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    canvas.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=8)
    canvas.tight_layout(rect=(0, 0.1, 1, 1))
    canvas.savefig(FIGURE, dpi=150)


def main() -> None:
    runs = load()
    if not runs:
        raise SystemExit("There are no results yet: run experiments/quality_at_budget.py first.")
    for task in sorted({task for task, _, _ in runs}):
        print(table(task, runs))
    figure(runs)
    print(f"Figure: {FIGURE}")


if __name__ == "__main__":
    main()
