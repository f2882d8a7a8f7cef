"""Reports of training, calibration and evaluation as tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from thresher.show.bench_tables import bench_table, profile_table
from thresher.show.wording import count, known, literal, number, points, rate_text

SEEN = (
    ". If the model was fine-tuned on this part of train, pruning looks worse there than it is: name texts "
    "that it has not seen with --held-out"
)


def training_table(report: dict[str, Any]) -> Table:
    """Quality of base, dense and pruned, and what was saved."""
    metric = report["metric"]
    data = report["data"]
    chosen_on = ", which also chose the checkpoint" if data["eval"] in (None, data.get("held_out")) else ""
    table = _table(f"{report['out']}: {metric} on {count(data['eval_texts'], 'text')}{chosen_on}")
    _columns(table, "model", metric, "FLOPs ratio")
    for name, quality in report["quality"].items():
        ratio = report["flops_ratio"] if name == "pruned" else 1.0
        _row(table, name, number((quality or {}).get(metric)), number(ratio, ".3f"))
    for rung in report.get("ladder", ())[1:]:
        name = f"pruned, at budget {rung['budget']:g}"
        _row(table, name, number(rung["quality"].get(metric)), number(rung["flops_ratio"], ".3f"))
    lines = []
    if "drop" in report:
        sense, drop, interval = points(report["drop"], report.get("drop_interval"))
        lines += [f"Points {sense}: {drop}", f"95 %: {interval}"]
    if choice := report.get("max_drop"):
        lines.append(_promise(choice, metric, data.get("held_out")))
    return _caption(table, lines)


def _promise(choice: dict[str, Any], metric: str, held_out: str | None) -> str:
    """What came of --max-drop."""
    sense, drop, interval = points(choice["drop"], choice["interval"])
    came = (
        f"{drop} points of {metric} {sense} (95 %: {interval}) "
        f"on {count(choice['texts'], 'held-out text')}, which chose it"
    )
    if choice["kept"]:
        doubt = "; that is not sure on so few, and more of them (--held-out) may allow more pruning"
        allowed = count(float(choice["bound"]), "point")
        return f"{came}; {allowed} may be lost{'' if choice['clear'] else doubt}"
    lost, error = choice["drop"], choice["error"]
    possible = lost + error + 0.1 if known(lost) and known(error) else None
    return (
        f"{count(float(choice['bound']), 'point')} at most cannot be kept: the least is {came}. "
        f"What can: --max-drop {number(possible, '.1f')}%, or longer training (--soft-epochs, --hard-epochs)"
        + ("" if held_out else SEEN)
    )


def calibration_table(report: dict[str, Any]) -> Table:
    """What calibration came to: the change against its bound, FLOPs, tokens kept."""
    back = report["stepped_back"]
    how = f", which made it step back {count(back, 'time')}" if back else " that chose nothing"
    table = _table(f"{report['out']}: checked on {count(report['data']['checked_on'], 'text')}{how}")
    _columns(table, "outputs changed", "allowed", "FLOPs ratio", "seconds")
    _row(
        table,
        f"{number(report['change'], '.2%')} ± {number(report['standard_error'], '.2%')}",
        number(report["max_change"], ".2%"),
        number(report["flops_ratio"], ".3f"),
        number(report["seconds"], ".0f"),
    )
    return _caption(table, [_kept(report)])


def evaluation_table(report: dict[str, Any]) -> Table:
    """Quality, FLOPs and speed, one model a row; what packing alone gives; tokens kept per layer below."""
    quality, speed = report["quality"], report.get("speed") or {}
    metric = next(iter(quality["pruned"]))
    budget = report["settings"]["budget"]
    at = "" if budget is None else f" at budget {budget:g}"
    table = _table(f"{report['model']}{at}: {metric} on {count(report['data']['texts'], 'text')}")
    timed = ("texts/s", "with tokenizing", "speed-up") if speed else ()
    _columns(table, "model", metric, "FLOPs ratio", *timed)
    for name in quality:
        if quality[name] is None:
            continue  # a model that was calibrated: the base model is the dense one
        label = _recorded(report) if name == "base" else name
        ratio = report["flops_ratio"] if name.startswith("pruned") else 1.0
        value = number(quality[name].get(metric))
        _row(table, label, value, number(ratio, ".3f"), *_speed_cells(speed, name))
        if name == "dense" and "packed" in speed:
            # In another precision than the dense model was measured in, nobody has looked.
            same = "pruned, fp32" not in quality
            cells = _speed_cells(speed, "dense, packed")
            _row(table, "dense, packed", value if same else number(None), number(1.0, ".3f"), *cells)
    return _caption(table, [_kept(report), *_conditions(speed)])


def _recorded(report: dict[str, Any]) -> str:
    """The base model, and on what its quality was measured when the model was pruned."""
    data = report["data"]
    recut = (
        "" if data["max_length"] == data["trained_length"] else f", {count(data['trained_length'], 'token')}"
    )
    return f"base, recorded on {report['base_measured_on']}{recut}"


def _speed_cells(speed: dict[str, Any], name: str) -> list[str]:
    """Rates of one row, if it was timed."""
    timed = {"dense": "transformers", "dense, packed": "packed", "pruned": "thresher"}.get(name)
    if timed not in speed:
        return []
    times = {"dense": 1.0, "dense, packed": speed.get("packed_ratio"), "pruned": speed.get("ratio")}[name]
    rates = speed[timed]
    return [
        rate_text(rates["texts_per_second"]),
        rate_text(rates["with_tokenizing"]),
        number(times, ".2f", " x"),
    ]


def _conditions(speed: dict[str, Any]) -> list[str]:
    """How the speed was measured, and which part of it comes of what."""
    if not speed:
        return []
    low, high = speed["ratio_spread"]
    device = speed.get("device", "cpu")
    where = count(speed["threads"], "thread") if device == "cpu" else device
    lines = [
        f"Speed: {count(speed['texts'], 'text')}, batches of {speed['batch']} sorted by length, "
        f"{_precisions(speed)}, {where};",
        f"median of {count(speed['repeats'], 'paired run')} ({number(low)} to {number(high, '.2f', ' x')}). "
        "dense is timed as transformers runs it, with padding.",
    ]
    if "packed" in speed:
        packing, pruning = (number(speed.get(f"{of}_ratio"), ".2f", " x") for of in ("packed", "pruning"))
        lines.append(
            f"Packing alone gives {packing} (dense, packed: our engine, no padding, nothing dropped); "
            f"pruning then gives {pruning}."
        )
    return lines


def _precisions(speed: dict[str, Any]) -> str:
    dense = {"float32": "fp32", "bfloat16": "bf16"}.get(speed["dtype"], speed["dtype"])
    return dense if dense == speed["precision"] else f"dense {dense}, packed and pruned {speed['precision']}"


def _kept(report: dict[str, Any]) -> str:
    shares = [number(share, ".0%") for share in report["kept_share"] or ()]
    return f"Tokens kept after each layer: {', '.join(shares) or number(None)}"


def _table(title: str) -> Table:
    return Table(title=literal(title, "table.title"))


def _columns(table: Table, first: str, *others: str) -> None:
    table.add_column(literal(first))
    for name in others:
        table.add_column(literal(name), justify="right")


def _row(table: Table, *cells: str) -> None:
    table.add_row(*map(literal, cells))


def _caption(table: Table, lines: list[str]) -> Table:
    if lines:
        table.caption = literal("\n".join(lines), "table.caption")
    return table


__all__ = ["bench_table", "calibration_table", "evaluation_table", "profile_table", "training_table"]
