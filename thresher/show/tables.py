"""Reports of training, calibration and evaluation as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from thresher.reports import Calibration, Choice, Evaluation, Kept, Pruning, Speed, Training
from thresher.show.bench_tables import bench_table, fresh_table, profile_table
from thresher.show.wording import count, known, literal, number, points, rate_text

SEEN = (
    ". If the model was fine-tuned on this part of train, pruning looks worse there than it is: name texts "
    "that it has not seen in `held_out`"
)


def training_table(report: Training) -> Table:
    """Quality of the base model, dense and pruned, and what was saved."""
    metric, data = report.metric, report.data
    chosen_on = ", which also chose the checkpoint" if data.chosen_on_eval else ""
    table = _table(f"{report.out}: {metric} on {count(data.eval_texts, 'text')}{chosen_on}")
    _columns(table, "model", metric, "FLOPs ratio")
    for name, quality in report.quality.items():
        ratio = report.flops_ratio if name == "pruned" else 1.0
        _row(table, name, number(quality.get(metric)), number(ratio, ".3f"))
    if not isinstance(report, Pruning):
        return table
    for rung in report.ladder[1:]:
        name = f"pruned, at budget {rung.budget:g}"
        _row(table, name, number(rung.quality.get(metric)), number(rung.flops_ratio, ".3f"))
    sense, drop, interval = points(report.drop, report.drop_interval)
    lines = [f"Points {sense}: {drop}", f"95 %: {interval}"]
    if report.max_drop is not None:
        lines.append(_promise(report.max_drop, report.max_drop.metric or metric, data.held_out))
    return _caption(table, lines)


def _promise(choice: Choice, metric: str, held_out: str | None) -> str:
    """What came of a bound on the drop."""
    sense, drop, interval = points(choice.drop, choice.interval)
    came = (
        f"{drop} points of {metric} {sense} (95 %: {interval}) "
        f"on {count(choice.texts, 'held-out text')}, which chose it"
    )
    if choice.kept:
        doubt = "; that is not sure on so few, and more of them (`held_out`) may allow more pruning"
        allowed = count(float(choice.bound), "point")
        return f"{came}; {allowed} may be lost{'' if choice.clear else doubt}"
    lost, error = choice.drop, choice.error
    possible = lost + error + 0.1 if known(lost) and known(error) else None
    return (
        f"{count(float(choice.bound), 'point')} at most cannot be kept: the least is {came}. "
        f"What can: `max_drop` {number(possible, '.1f')}%, or longer training (`soft_epochs`, `hard_epochs`)"
        + ("" if held_out else SEEN)
    )


def calibration_table(report: Calibration) -> Table:
    """What calibration came to: the change against its bound, FLOPs, tokens kept."""
    back = report.stepped_back
    how = f", which made it step back {count(back, 'time')}" if back else " that chose nothing"
    table = _table(f"{report.out}: checked on {count(report.data.checked_on, 'text')}{how}")
    _columns(table, "outputs changed", "allowed", "FLOPs ratio", "seconds")
    _row(
        table,
        f"{number(report.change, '.2%')} ± {number(report.standard_error, '.2%')}",
        number(report.max_change, ".2%"),
        number(report.flops_ratio, ".3f"),
        number(report.seconds, ".0f"),
    )
    return _caption(table, [_kept(report)])


def evaluation_table(report: Evaluation) -> Table:
    """Quality, FLOPs and speed, one model a row; what packing alone gives; tokens kept per layer below."""
    quality, speed, budget = report.quality, report.speed, report.settings.budget
    metric = next(iter(quality["pruned"] or ()))
    at = "" if budget is None else f" at budget {budget:g}"
    table = _table(f"{report.model}{at}: {metric} on {count(report.data.texts, 'text')}")
    timed = ("texts/s", "with tokenizing", "speed-up") if speed else ()
    _columns(table, "model", metric, "FLOPs ratio", *timed)
    for name, found in quality.items():
        if found is None:
            continue  # a model that was calibrated: the base model is the dense one
        label = _recorded(report) if name == "base" else name
        ratio = report.flops_ratio if name.startswith("pruned") else 1.0
        value = number(found.get(metric))
        _row(table, label, value, number(ratio, ".3f"), *_speed_cells(speed, name))
        if name == "dense" and speed is not None:
            # In another precision than the dense model was measured in, nobody has looked.
            same = "pruned, fp32" not in quality
            cells = _speed_cells(speed, "dense, packed")
            _row(table, "dense, packed", value if same else number(None), number(1.0, ".3f"), *cells)
    return _caption(table, [_kept(report), *_conditions(speed)])


def _recorded(report: Evaluation) -> str:
    """The base model, and on what its quality was measured when the model was pruned."""
    data = report.data
    recut = "" if data.max_length == data.trained_length else f", {count(data.trained_length, 'token')}"
    return f"base, recorded on {report.base_measured_on}{recut}"


def _speed_cells(speed: Speed | None, name: str) -> list[str]:
    """Rates of one row, if it was timed."""
    if speed is None:
        return []
    timed = {
        "dense": (speed.transformers, 1.0),
        "dense, packed": (speed.packed, speed.packed_ratio),
        "pruned": (speed.thresher, speed.ratio),
    }
    if name not in timed:
        return []
    rates, times = timed[name]
    return [
        rate_text(rates.texts_per_second),
        rate_text(rates.with_tokenizing),
        number(times, ".2f", " x"),
    ]


def _conditions(speed: Speed | None) -> list[str]:
    """How the speed was measured, and which part of it comes of what."""
    if speed is None:
        return []
    low, high = speed.ratio_spread
    where = count(speed.threads, "thread") if speed.device == "cpu" else speed.device
    packing, pruning = (number(ratio, ".2f", " x") for ratio in (speed.packed_ratio, speed.pruning_ratio))
    engines = {"dense": speed.transformers, "dense, packed": speed.packed, "pruned": speed.thresher}
    took = [f"{number(rates.query_ms, '.0f')} ms {name}" for name, rates in engines.items() if rates.query_ms]
    return [
        *([f"A query with 100 passages takes {'; '.join(took)}, with tokenizing."] if took else []),
        f"Speed: {count(speed.texts, 'text')}, batches of {speed.batch} sorted by length, "
        f"{_precisions(speed)}, {where};",
        f"median of {count(speed.repeats, 'paired run')} ({number(low)} to {number(high, '.2f', ' x')}). "
        "dense is timed as transformers runs it, with padding.",
        f"Packing alone gives {packing} (dense, packed: our engine, no padding, nothing dropped); "
        f"pruning then gives {pruning}.",
    ]


def _precisions(speed: Speed) -> str:
    dense = {"float32": "fp32", "bfloat16": "bf16"}.get(speed.dtype, speed.dtype)
    return dense if dense == speed.precision else f"dense {dense}, packed and pruned {speed.precision}"


def _kept(report: Kept) -> str:
    shares = [number(share, ".0%") for share in report.kept_share or ()]
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


__all__ = [
    "bench_table",
    "calibration_table",
    "evaluation_table",
    "fresh_table",
    "profile_table",
    "training_table",
]
