"""Tables and the figure of experiments/README.md, from the results of finished runs.

    python experiments/tables.py

Markdown: quality by task, method and budget, and how far other methods are from ours; searches; what
--max-drop and calibrate came to; the shift of lengths; operations. It is printed, and goes between the two
marks of the README beside the folder of results, where a figure is written, too. Runs with settings that were
changed by --set are left out, or with --all printed in rows of their own.
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from results import RESULTS, load
from tasks import MAIN, TASKS
from thresher.reports import Calibration, Pruning

MOST_LOST, MOST_COUNTED = 1.0, 5.0  # points; and the reduction beyond which more does not count in the mean
FREE = 0.88  # FLOPs ratio of `last-layer`
PRECISIONS = ("fp32", "bf16", "int8")  # that pruned models run in; transformers beside them in fp32
SEARCHED = {name for name, task in TASKS.items() if task.queries is not None}  # by search.py, on test queries
MARKS = "<!-- from tables.py -->", "<!-- until here -->"
Runs = dict[tuple[str, str, float], list[dict[str, Any]]]


def at_budgets(reports: dict[str, dict[str, Any]]) -> Runs:
    """Runs of quality_at_budget.py by task, method and budget; a ladder's rungs each under their own."""
    found: Runs = defaultdict(list)
    for model, values in reports.items():
        what = values.get("experiment")
        if what is None or what["budget"] is None or what["task"] in SEARCHED:
            continue
        report = Pruning.from_json(values)
        base = report.quality["base"][report.metric]
        others = reports.get(f"second_file-{what['task']}", {"models": {}})["models"].get(model, {})
        elsewhere = others["points"] if others.get("seconds") == report.seconds else {}
        name = " ".join([what["method"], *(f"{key}={value}" for key, value in what["changed"].items())])
        points = [(rung.budget, rung.flops_ratio, rung.quality) for rung in report.ladder]
        if len(points) > 1:
            name += ", ladder"
        else:
            points = [(what["budget"], report.flops_ratio, report.quality["pruned"])]
        for budget, ratio, quality in points:
            found[what["task"], name, budget].append(
                {
                    "seed": what["seed"],
                    "model": model,
                    "metric": report.metric,
                    "base": base,
                    "pruned": quality[report.metric],
                    "lost": base - quality[report.metric],
                    "agreement": report.agreement if len(points) == 1 else None,
                    "elsewhere": elsewhere.get(str(budget), elsewhere.get("None", {})).get("lost"),
                    "ratio": ratio,
                    "minutes": minutes(report),
                }
            )
    return found


def ordered(runs: Runs) -> list[str]:
    """The tasks that there are runs of, as `TASKS` has them."""
    return [task for task in TASKS if any(task == name for name, _, _ in runs)]


def changed(report: dict[str, Any]) -> bool:
    """Whether a run had other settings than the default."""
    return bool(report.get("experiment", {}).get("changed"))


def minutes(report: Pruning) -> float | None:
    """What a run took; None where it was interrupted, and only its last part was timed."""
    return None if report.resumed else report.seconds / 60


def lost(some: list[dict[str, Any]]) -> float:
    return mean(run["lost"] for run in some)


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Mean, and standard deviation where there are several."""
    values = list(values)
    text = f"{mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ({stdev(values):.{digits}f})"


def markdown(title: str, columns: str, rows: list[list[str]]) -> str:
    lines = [f"### {title}\n", f"| {columns} |", "|" + "---|" * len(columns.split("|"))]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)]) + "\n"


def quality_table(task: str, runs: Runs) -> str:
    """One task: the largest budget first, and in a budget what lost least."""
    mine = {key: some for key, some in runs.items() if key[0] == task}
    second = any(run["elsewhere"] is not None for some in mine.values() for run in some)
    rows = []
    for (_, method, budget), some in sorted(mine.items(), key=lambda item: (-item[0][2], lost(item[1]))):
        numbers = [spread([run[key] for run in some]) for key in ("base", "pruned", "lost")]
        seeds = " ".join(str(run["seed"]) for run in some)
        ratio = spread([run["ratio"] for run in some], 3)
        for key in ("agreement", *(("elsewhere",) if second else ())):
            known = [run[key] for run in some if run[key] is not None]
            numbers.append(spread(known) if len(known) == len(some) else "")
        took = [run["minutes"] for run in some if run["minutes"] is not None]
        rows.append([method, f"{budget:g}", ratio, *numbers, seeds, spread(took, 0) if took else ""])
    metric = next(iter(mine.values()))[0]["metric"]
    columns = "method | budget | FLOPs ratio | base | pruned | lost | as base | "
    columns += f"{'lost, second file | ' if second else ''}seeds | minutes"
    return markdown(f"{task}, {metric}", columns, rows)


def beside_table(runs: Runs) -> str:
    """How many points more each method loses than ours of the same base and budget: mean over the seeds that
    both have."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for (task, method, budget), some in runs.items():
        ours = {run["seed"]: run for run in runs.get((task, "ours", budget), [])}
        for key, where in (("lost", ""), ("elsewhere", ", second file")):
            pairs = [(run[key], ours[run["seed"]][key]) for run in some if run["seed"] in ours]
            more = [theirs - mine for theirs, mine in pairs if None not in (theirs, mine)]
            if more and method != "ours":
                found[f"{task} at {budget:g}{where}"][method] = spread(more)
    methods = sorted({method for row in found.values() for method in row})
    places = sorted(found, key=lambda place: list(TASKS).index(place.split()[0]))
    rows = [[place, *(found[place].get(method, "") for method in methods)] for place in places]
    return markdown("Points lost beyond ours", " | ".join(["where", *methods]), rows) if rows else ""


def drop_table(reports: dict[str, dict[str, Any]]) -> str:
    """What --max-drop found on held-out texts, and what came of it on the test file."""
    rows = []
    for values in reports.values():
        what = values.get("experiment")
        if what is None or what.get("max_drop") is None:
            continue
        report = Pruning.from_json(values)
        choice, interval = report.max_drop, report.drop_interval
        below = report.drop <= choice.bound
        kept = "yes" if below else "within the error" if interval[0] <= choice.bound else "no"
        unsure = "; said not to be sure" if choice.kept else "; said that it cannot be"
        rows.append(
            [
                what["task"],
                what["method"],
                f"{choice.bound:g}",
                str(what["seed"]),
                f"{choice.drop:.2f} ({choice.interval[0]:.2f} to {choice.interval[1]:.2f})",
                str(choice.texts),
                f"{report.quality['base'][report.metric]:.2f}",
                f"{report.drop:.2f} ({interval[0]:.2f} to {interval[1]:.2f})",
                f"{report.flops_ratio:.3f}",
                kept if choice.clear else kept + unsure,
                "" if (took := minutes(report)) is None else f"{took:.0f}",
            ]
        )
    columns = "task | method | bound | seed | lost, held out (95 %) | texts | base | lost, test (95 %)"
    return markdown("--max-drop", f"{columns} | FLOPs ratio | kept | minutes", rows) if rows else ""


def calibration_table(reports: dict[str, dict[str, Any]]) -> str:
    """What thresholds that nobody trained change, and save."""
    rows = []
    for values in reports.values():
        if what := values.get("calibration"):
            report, test = Calibration.from_json(values), values["test"]
            metric = next(iter(test["quality"]["base"]))
            rows.append(
                [
                    what["task"],
                    str(what["seed"]),
                    f"{report.max_change:.2%}",
                    f"{report.change:.2%} of {report.data.checked_on}",
                    f"{test['change']:.2%} of {test['texts']}",
                    *(f"{test['quality'][which][metric]:.2f}" for which in ("base", "pruned")),
                    *(f"{test[ratio]:.3f}" for ratio in ("flops_ratio", "last_layer")),
                    f"{report.seconds:.0f}",
                ]
            )
    columns = "task | seed | bound | changed, held out | changed, test | base | pruned | FLOPs ratio"
    return markdown("calibrate", f"{columns} | last-layer | seconds", rows) if rows else ""


def length_table(reports: dict[str, dict[str, Any]]) -> str:
    """Points lost and FLOPs ratio on texts of each range of lengths."""
    rows = []
    for report in reports.values():
        if what := report.get("length_shift"):
            cells = [what["task"], what["method"], f"{what['budget']:g}", str(what["seed"])]
            for group in report["groups"]:
                low, high = group["drop_interval"]
                cells.append(f"{group['drop']:.2f} ({low:.2f} to {high:.2f}) at {group['flops_ratio']:.3f}")
            rows.append(cells)
    columns = "task | method | budget | seed | up to the median | up to the third quartile | longer"
    return markdown("Trained on the shorter half", columns, rows) if rows else ""


def of_this(run: dict[str, Any], rows: dict[str, Any]) -> bool:
    """Whether the model that was timed is the one that the run made, not one of that name before it."""
    timed = rows["fp32"]
    same_quality = abs(timed["quality"][run["metric"]] - run["pruned"]) < 0.01
    return same_quality and abs(timed.get("flops_ratio", 0.0) - run["ratio"]) < 1e-3


def headline_table(runs: Runs, reports: dict[str, dict[str, Any]]) -> str:
    """Per task the smallest budget at which ours, trained for that budget alone, loses a point at most, and
    the speed measured there. Where there is none, what is free counts."""
    rows, ratios = [], []
    for task in ordered(runs):
        mine = {key[2]: some for key, some in runs.items() if key[:2] == (task, "ours")}
        fit = {budget: some for budget, some in mine.items() if lost(some) <= MOST_LOST}
        if not fit:
            if mine and task in MAIN:
                ratios.append(FREE)
                rows.append([task, "none tried loses as little", *[""] * (5 + len(PRECISIONS))])
            continue
        budget = min(fit)
        some = fit[budget]
        ratio = mean(run["ratio"] for run in some)
        if task in MAIN:
            ratios.append(max(ratio, 1 / MOST_COUNTED))
        numbers = [spread([run[key] for run in some]) for key in ("base", "pruned")]
        rows.append([task, some[0]["metric"], *numbers, str(len(some)), f"{budget:g}", f"{1 / ratio:.1f} x"])
        models = reports.get(f"operations-{task}", {"models": {}})["models"]
        timed = ((run, models[run["model"]]) for run in some if run["model"] in models)
        speed = next((rows for run, rows in timed if of_this(run, rows)), {})
        rows[-1] += [f"{speed[p]['speed']['ratio']:.1f} x" if p in speed else "" for p in PRECISIONS]
    if not ratios:
        return ""
    rows.insert(
        len(ratios),
        [f"mean of these {len(ratios)}", *[""] * 5, f"{1 / mean(ratios):.1f} x", *[""] * len(PRECISIONS)],
    )
    columns = "task | metric | base | pruned | seeds | budget | fewer FLOPs | " + " | ".join(PRECISIONS)
    return markdown("At most a point lost", columns, rows)


def operations_table(reports: dict[str, dict[str, Any]]) -> str:
    """What pruning and precision save together: FLOPs and bit operations against base in fp32, and the
    clock."""
    table = []
    for name, report in reports.items():
        if not name.startswith("operations-"):
            continue
        layers = max(row["layers"] for rows in report["models"].values() for row in rows.values())
        for model, rows in report["models"].items():
            for precision, row in rows.items():
                flops = row["flops"] / row["flops_ratio"] * layers / row["layers"]  # of base
                table.append(
                    [
                        model,
                        precision,
                        f"{next(iter(row['quality'].values())):.2f}",
                        f"{flops / row['flops']:.1f} x",
                        f"{flops * 32**2 / row['bit_operations']:.0f} x",
                        f"{row['speed']['ratio']:.1f} x",
                    ]
                )
    columns = "model | precision | quality | fewer FLOPs | fewer bit operations | speed"
    return markdown("Pruning and precision", columns, table) if table else ""


def search_table(reports: dict[str, dict[str, Any]]) -> str:
    """Rerankers and embedders on their test queries."""
    rows = []
    for name, report in reports.items():
        if not name.startswith("search-"):
            continue
        metric = next(iter(report["quality"]["base"]))
        base, pruned = (report["quality"][model][metric] for model in ("base", "pruned"))
        low, high = report["interval"]
        numbers = [f"{report['flops_ratio']:.3f}", f"{base:.2f}", f"{pruned:.2f}"]
        numbers += [f"{report['lost']:.2f} ({low:.2f} to {high:.2f})"]
        counts = [str(report["texts"]), str(report["rows"]), f"{report['mean_tokens']:.0f}"]
        rows.append([report["run"], metric, *numbers, *counts, report["precision"]])
    columns = "run | metric | FLOPs ratio | base | pruned | lost (95 %) | texts | rows | "
    columns += "tokens | precision"
    return markdown("Rankings and retrieval", columns, rows) if rows else ""


def figure(runs: Runs, file: Path) -> None:
    """Points of quality lost against the FLOPs ratio, a panel for each task and a line for each method."""
    tasks = ordered(runs)
    # Ours first, in the strongest colours.
    methods = sorted({method for _, method, _ in runs}, key=lambda name: (not name.startswith("ours"), name))
    shades = pyplot.get_cmap("tab20").colors
    colours = dict(zip(methods, (shades[::2] + shades[1::2]) * 3, strict=False))
    canvas, panels = pyplot.subplots(1, len(tasks), figsize=(3.4 * len(tasks), 3.2), squeeze=False)
    for panel, task in zip(panels[0], tasks, strict=True):
        for method in methods:
            points = sorted(
                (mean(run["ratio"] for run in some), -lost(some))
                for (t, m, _), some in runs.items()
                if (t, m) == (task, method)
            )
            if points:
                panel.plot(*zip(*points, strict=True), "o-", label=method, color=colours[method], ms=4)
        panel.axhline(0, color="grey", lw=0.5)
        panel.set_yscale("symlog", linthresh=2, subs=[1])  # some lose thirty times as much as others
        panel.set_yticks(ticks := [1, 0, -1, -2, -5, -10, -20, -40], [f"{tick:+d}" for tick in ticks])
        panel.minorticks_off()
        panel.set(title=task, xlabel="FLOPs ratio", ylim=(min(-3, 1.1 * panel.get_ylim()[0]), 1.5))
    panels[0][0].set_ylabel("quality against base, points")
    handles = {
        label: handle
        for panel in panels[0]
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    canvas.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, fontsize=8)
    canvas.tight_layout(rect=(0, 0.1, 1, 1))
    canvas.savefig(file, dpi=150)


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--all", action="store_true", help="also runs whose settings were changed")
    given = parser.parse_args(argv)
    results, reports = given.results, load(given.results)
    if not given.all:
        reports = {name: report for name, report in reports.items() if not changed(report)}
    runs = at_budgets(reports)
    if not reports:
        raise SystemExit("There are no results yet: run experiments/quality_at_budget.py first.")
    tables = [headline_table(runs, reports), beside_table(runs)]
    tables += [quality_table(task, runs) for task in ordered(runs)]
    tables += [
        make(reports)
        for make in (search_table, drop_table, calibration_table, length_table, operations_table)
    ]
    print(text := "\n".join(filter(None, tables)))
    if (readme := results.parent / "README.md").exists() and not given.all:
        before, begin, rest = readme.read_text().partition(MARKS[0])
        _, end, after = rest.partition(MARKS[1])
        if begin and end:
            readme.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")
    if runs:
        figure(runs, file := results.parent / "quality_at_budget.png")
        print(f"Figure: {file}")


if __name__ == "__main__":
    main()
