"""Reports as tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

SEEN = (
    ". If the model was fine-tuned on this part of train, pruning looks worse there than it is: name texts "
    "that it has not seen with --held-out"
)


def training_table(report: dict[str, Any]) -> Table:
    """Quality of base, dense and pruned, and what was saved."""
    metric = report["metric"]
    data = report["data"]
    chosen_on = ", which also chose the checkpoint" if data["eval"] in (None, data.get("held_out")) else ""
    table = Table(title=f"{report['out']}: {metric} on {report['data']['eval_texts']} texts{chosen_on}")
    table.add_column("model")
    table.add_column(metric, justify="right")
    table.add_column("FLOPs ratio", justify="right")
    for name, quality in report["quality"].items():
        ratio = report["flops_ratio"] if name == "pruned" else 1.0
        table.add_row(name, f"{quality[metric]:.2f}", f"{ratio:.3f}")
    for rung in report.get("ladder", ())[1:]:
        ratio, value = rung["flops_ratio"], rung["quality"][metric]
        table.add_row(f"pruned, at budget {rung['budget']:g}", f"{value:.2f}", f"{ratio:.3f}")
    if "drop" in report:
        low, high = report["drop_interval"]
        table.caption = f"Points lost: {report['drop']:.2f}\n95 %: {low:.2f} to {high:.2f}"
    if choice := report.get("max_drop"):
        table.caption = f"{table.caption}\n{_promise(choice, metric, data.get('held_out'))}"
    return table


def _promise(choice: dict[str, Any], metric: str, held_out: str | None) -> str:
    """What came of --max-drop."""
    low, high = choice["interval"]
    lost = (
        f"{choice['drop']:.2f} points of {metric} lost (95 %: {low:.2f} to {high:.2f}) "
        f"on {choice['texts']} held-out texts, which chose it"
    )
    if choice["kept"]:
        doubt = "; that is not sure on so few, and more of them (--held-out) may allow more pruning"
        return f"{lost}, of {choice['bound']:g} allowed{'' if choice['clear'] else doubt}"
    possible = choice["drop"] + choice["error"] + 0.1
    return (
        f"{choice['bound']:g} points at most cannot be kept: the least is {lost}. "
        f"What can: --max-drop {possible:.1f}%, or longer training (--soft-epochs, --hard-epochs)"
        + ("" if held_out else SEEN)
    )


def calibration_table(report: dict[str, Any]) -> Table:
    """What calibration came to: the change against its bound, FLOPs, tokens kept."""
    data = report["data"]
    back = report["stepped_back"]
    how = f", which made it step back {back} times" if back else " that chose nothing"
    table = Table(title=f"{report['out']}: checked on {data['checked_on']} texts{how}")
    for name in ("outputs changed", "allowed", "FLOPs ratio", "seconds"):
        table.add_column(name, justify="right")
    table.add_row(
        f"{report['change']:.2%} ± {report['standard_error']:.2%}",
        f"{report['max_change']:.2%}",
        f"{report['flops_ratio']:.3f}",
        f"{report['seconds']:.0f}",
    )
    table.caption = "Tokens kept after each layer: " + ", ".join(f"{s:.0%}" for s in report["kept_share"])
    return table


def evaluation_table(report: dict[str, Any]) -> Table:
    """Quality, FLOPs and speed, one model a row; tokens kept per layer below."""
    quality, speed = report["quality"], report.get("speed")
    metric = next(iter(quality["pruned"]))
    budget = report["settings"]["budget"]
    at = "" if budget is None else f" at budget {budget:g}"
    table = Table(title=f"{report['model']}{at}: {metric} on {report['data']['texts']} texts")
    table.add_column("model")
    table.add_column(metric, justify="right")
    table.add_column("FLOPs ratio", justify="right")
    columns = {"dense": "transformers", "pruned": "thresher"} if speed else {}
    if speed:
        table.add_column("texts/s", justify="right")
        table.add_column("with tokenizing", justify="right")
        table.add_column("speed-up", justify="right")
    data = report["data"]
    recut = "" if data["max_length"] == data["trained_length"] else f", {data['trained_length']} tokens"
    for name in quality:
        if quality[name] is None:
            continue  # a model that was calibrated: base is dense
        value = quality[name].get(metric)
        label = f"base, recorded on {report['base_measured_on']}{recut}" if name == "base" else name
        row = [label, "-" if value is None else f"{value:.2f}"]
        row.append(f"{report['flops_ratio'] if name.startswith('pruned') else 1.0:.3f}")
        if speed and name in columns:
            timed = speed[columns[name]]
            row += [rate_text(timed["texts_per_second"]), rate_text(timed["with_tokenizing"])]
            row.append(f"{speed['ratio']:.2f} x" if name == "pruned" else "1.00 x")
        table.add_row(*row)
    kept = ", ".join(f"{share:.0%}" for share in report["kept_share"])
    table.caption = f"Tokens kept after each layer: {kept}"
    if speed:
        low, high = speed["ratio_spread"]
        table.caption += (
            f"\nSpeed: {speed['texts']} texts, batches of {speed['batch']} sorted by length, "
            f"{_precisions(speed)}, {speed['threads']} threads;\nmedian of {speed['repeats']} paired runs "
            f"({low:.2f} to {high:.2f} x). dense is timed as transformers runs it."
        )
    return table


def bench_table(report: dict[str, Any]) -> Table:
    """One contender a row: quality, rates, latencies, memory, and its ratio to the fastest dense rival."""
    rows, lengths = report["rows"], report["lengths"]
    table = Table(
        title=f"{report['model']}: {report['data']['texts']} texts of {lengths['shortest']} to "
        f"{lengths['longest']} tokens, mean {lengths['mean']:.0f}; batches of {report['batch']}, "
        f"{report['threads']} threads",
        box=box.SIMPLE_HEAD,
    )
    measured = bool(rows) and "quality" in rows[0]
    metric = next(iter(rows[0]["quality"])) if measured else ""
    columns = ["engine", "in", *([metric] if measured else []), "texts/s", "spread", "tokens/s"]
    for name in [*columns, "p50 ms", "p95 ms", "peak MB", "x same", "x any", "realised"]:
        _add_column(table, name)
    for row in rows:
        times = [row["times_same_precision"], row["times_any_precision"], row.get("realised")]
        memory = row.get("peak_mb")
        table.add_row(
            row["name"],
            row["precision"],
            *([f"{row['quality'][metric]:.2f}"] if measured else []),
            rate_text(row["texts_per_second"]),
            f"{rate_text(row['slowest'])}-{rate_text(row['fastest'])}",
            f"{row['tokens_per_second']:.0f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p95_ms']:.1f}",
            "-" if memory is None else f"{memory:.0f}",
            *("-" if value is None else f"{value:.2f}" for value in times),
            style="bold" if row["kind"] == "pruned" else None,
        )
    table.caption = (
        "x: times as fast as the fastest dense engine that is not ours, of the same precision or of any; "
        f"median of {report['repeats']} interleaved rounds\n"
        f"realised: speed-up over packed, times the FLOPs ratio of {report['flops_ratio']:.3f}"
    )
    for name, why in report["skipped"].items():
        table.caption += f"\nSkipped: {name} ({why})"
    return table


def profile_table(report: dict[str, Any]) -> Table:
    """One of our engines a row, one kind of work a column: shares of the time, and the linears' rate."""
    rows = [row for row in report["rows"] if "profile" in row]
    table = Table(title="Where the time goes", box=box.SIMPLE_HEAD)
    table.caption = "GFLOP/s: of the linears; of large: over the rate of one large product"
    for name in ["engine", "in", *(rows[0]["profile"]["shares"] if rows else ()), "GFLOP/s", "of large"]:
        _add_column(table, name)
    for row in rows:
        rate, peak = row["profile"]["linear_rate"], report["matmul_rate"].get(row["precision"])
        table.add_row(
            row["name"],
            row["precision"],
            *(f"{share:.0%}" for share in row["profile"]["shares"].values()),
            "-" if rate is None else f"{rate / 1e9:.0f}",
            f"{rate / peak:.0%}" if rate and peak else "-",
        )
    return table


def rate_text(value: float) -> str:
    """A rate in three figures at least."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}".rstrip(".")


def _add_column(table: Table, name: str) -> None:
    """A number is never cut; the names of engines fold."""
    if name == "engine":
        table.add_column(name, overflow="fold", min_width=12)
    else:
        table.add_column(name, justify="left" if name == "in" else "right", no_wrap=True)


def _precisions(speed: dict[str, Any]) -> str:
    dense = {"float32": "fp32", "bfloat16": "bf16"}.get(speed["dtype"], speed["dtype"])
    return dense if dense == speed["precision"] else f"dense {dense}, pruned {speed['precision']}"
