"""Tables of reports: what they say, in words that are right, whatever the report holds."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from thresher.show.bench_tables import bench_table, profile_table
from thresher.show.tables import calibration_table, evaluation_table, training_table
from thresher.show.wording import count, literal, number, points, printable, rate_text

NAN = float("nan")
ODD = "o/[/old] [run] [bold] :smile:"  # all of which rich takes for its own, in a plain string


def printed(table: Table, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, markup=True, emoji=True)
    console.print(table)
    return console.file.getvalue()


def one_line(table: Table, width: int = 120) -> str:
    return " ".join(printed(table, width).split())


def training(**more: Any) -> dict[str, Any]:
    return {
        "out": ODD,
        "metric": "accuracy",
        "data": {"eval": "dev.tsv", "eval_texts": 1},
        "quality": {"base": {"accuracy": 90.0}, "pruned": {"accuracy": 90.67}},
        "flops_ratio": 0.49,
        "drop": -0.67,
        "drop_interval": [-1.5, 0.2],
    } | more


RATES = {"texts_per_second": 100.0, "slowest": 90.0, "fastest": 110.0, "with_tokenizing": 80.0}


def evaluation(**more: Any) -> dict[str, Any]:
    speed = {name: dict(RATES) for name in ("transformers", "packed", "thresher")}
    speed["packed"]["texts_per_second"] = 251.0
    return {
        "model": ODD,
        "base_measured_on": ODD,
        "data": {"texts": 1, "max_length": 1, "trained_length": 2},
        "quality": {"base": {"accuracy": 90.0}, "dense": {"accuracy": 91.0}, "pruned": {"accuracy": 90.67}},
        "flops_ratio": 0.49,
        "kept_share": [0.5, 0.25],
        "settings": {"budget": None},
        "speed": speed
        | {"ratio": 4.6, "ratio_spread": [4.1, 4.9], "packed_ratio": 2.5, "pruning_ratio": 1.84}
        | {"texts": 1, "batch": 32, "repeats": 1, "threads": 1, "device": "cpu"}
        | {"dtype": "float32", "precision": "fp32"},
    } | more


CALIBRATION = {
    "out": ODD,
    "data": {"checked_on": 1},
    "stepped_back": 1,
    "change": 0.01,
    "standard_error": 0.001,
    "max_change": 0.01,
    "flops_ratio": 0.5,
    "seconds": 1.0,
    "kept_share": [1.0, 0.5],
}
SKIPPED = {
    "onnxruntime, sorted, fp32": "not installed: onnx (pip install '.[bench]')",
    "openvino, sorted, fp32": "not installed: openvino (pip install '.[openvino]')",
    "openvino, sorted, int8": "not installed: openvino (pip install '.[openvino]')",
    "thresher openvino, packed, fp32": "not installed: openvino (pip install '.[openvino]')",
    "thresher openvino, pruned, fp32": "not installed: openvino (pip install '.[openvino]')",
    "thresher torch, packed, int8": "RuntimeError: [/red] :smile:",
}


def benchmark(**more: Any) -> dict[str, Any]:
    row = {"name": "thresher torch, pruned", "precision": "int8", "kind": "pruned", "peak_mb": 1234.0}
    row |= {"quality": {"accuracy": 91.0}, "tokens_per_second": 123456.0, "p50_ms": 123.4, "p95_ms": 1234.5}
    row |= RATES | {"times_same_precision": 12.34, "times_any_precision": 2.34, "realised": 0.9}
    row["profile"] = {"shares": {"linears": 0.5, "Python": 0.5}, "linear_rate": 1e12}
    return {
        "model": ODD,
        "data": {"texts": 1},
        "lengths": {"shortest": 3, "longest": 3, "mean": 3.0},
        "batch": 32,
        "threads": 1,
        "repeats": 1,
        "flops_ratio": 0.49,
        "rows": [row],
        "matmul_rate": {"fp32": 2e12},
        "skipped": SKIPPED,
    } | more


TABLES = [
    (training_table, training()),
    (calibration_table, CALIBRATION),
    (evaluation_table, evaluation()),
    (bench_table, benchmark()),
]


@pytest.mark.parametrize(("table", "report"), TABLES)
def test_names_are_printed_as_they_are(table: Any, report: dict[str, Any]) -> None:
    assert ODD in one_line(table(report))


@pytest.mark.parametrize(("table", "report"), TABLES)
def test_one_is_not_plural(table: Any, report: dict[str, Any]) -> None:
    said = one_line(table(report))
    for noun in ("text", "thread", "time", "round", "paired run"):
        assert f" 1 {noun}s" not in said


def damaged(report: Any, value: Any) -> Any:
    """The report with `value` for every float."""
    if isinstance(report, dict):
        return {name: damaged(item, value) for name, item in report.items()}
    if isinstance(report, list):
        return [damaged(item, value) for item in report]
    return value if isinstance(report, float) else report


@pytest.mark.parametrize("value", [None, NAN])
@pytest.mark.parametrize(("table", "report"), [*TABLES, (profile_table, benchmark())])
def test_what_is_missing_is_a_dash(table: Any, report: dict[str, Any], value: float | None) -> None:
    said = one_line(table(damaged(report, value)))
    assert " -" in said
    assert "nan" not in said.lower()
    assert "None" not in said


def test_points_lost_and_gained() -> None:
    assert "Points gained: 0.67 95 %: -0.20 to 1.50" in one_line(training_table(training()))
    lost = training(drop=0.67, drop_interval=[-0.2, 1.5])
    assert "Points lost: 0.67 95 %: -0.20 to 1.50" in one_line(training_table(lost))
    assert points(-0.001, [-0.004, 0.0]) == ("lost", "0.00", "0.00 to 0.00")
    assert points(None, None) == ("lost", "-", "- to -")
    choice = {"drop": -0.5, "interval": [-1.0, 0.1], "texts": 1, "kept": True, "clear": True, "bound": 1.0}
    said = one_line(training_table(training(max_drop=choice | {"error": 0.1})))
    assert "0.50 points of accuracy gained (95 %: -0.10 to 1.00) on 1 held-out text" in said
    assert "1 point may be lost" in said
    no_drop = {key: value for key, value in training(max_drop=choice).items() if key != "drop"}
    assert "None" not in one_line(training_table(no_drop))


def test_what_packing_alone_gives() -> None:
    said = printed(evaluation_table(evaluation()))
    rows = {line.split("│")[1].strip(): line.split() for line in said.splitlines() if "│" in line}
    packed = rows["dense, packed"]
    assert {"91.00", "1.000", "251", "80.0", "2.50"} <= set(packed)
    assert "Packing alone gives 2.50 x" in said
    assert "pruning then gives 1.84 x" in said
    assert list(rows).index("dense, packed") == list(rows).index("dense") + 1


def test_the_quality_of_packed_is_told_where_it_was_measured() -> None:
    quality = evaluation()["quality"]
    other = evaluation(quality=quality | {"pruned, fp32": {"accuracy": 90.7}})
    line = next(line for line in printed(evaluation_table(other)).splitlines() if "dense, packed" in line)
    assert line.split("│")[2].strip() == "-"


def test_reports_of_before_still_print() -> None:
    old = copy.deepcopy(evaluation())
    for key in ("packed", "packed_ratio", "pruning_ratio", "device"):
        del old["speed"][key]
    said = one_line(evaluation_table(old))
    assert "dense, packed" not in said
    assert "4.60 x" in said
    assert "texts/s" not in one_line(evaluation_table(evaluation(speed=None)))


def test_one_line_for_each_reason_to_skip() -> None:
    lines = str(bench_table(benchmark()).caption).splitlines()
    assert lines[-3:] == [
        "Not installed: onnx (pip install '.[bench]'): onnxruntime sorted in fp32",
        "Not installed: openvino (pip install '.[openvino]'): openvino sorted in fp32/int8, "
        "thresher openvino packed/pruned in fp32",
        "Skipped, RuntimeError: [/red] :smile:: thresher torch packed in int8",
    ]


def test_columns_of_the_benchmark_fit_and_are_explained() -> None:
    said = printed(bench_table(benchmark()))
    for cell in ("123456", "1234.5", "90.0-110", "12.34 x", "1234", "91.00"):
        assert cell in said
    for name in ("x same", "x any", "realised"):
        assert name not in said
    assert "90%" in said
    assert max(map(len, said.splitlines())) <= 120
    assert "promises 2.04 x" in one_line(bench_table(benchmark()))


def test_wording() -> None:
    assert [count(n, "thread") for n in (0, 1, 2)] == ["0 threads", "1 thread", "2 threads"]
    assert [count(n, "point") for n in (0.5, 1.0)] == ["0.5 points", "1 point"]
    assert count(1234567, "text") == "1234567 texts"
    assert [number(x, ".1f", " x") for x in (1.25, -0.01, None, NAN, float("inf"))] == [
        *("1.2 x", "0.0 x", "-", "-", "-")
    ]
    assert [rate_text(x) for x in (1234.5, 12.0, 0.1234, None, NAN)] == ["1234", "12.0", "0.123", "-", "-"]
    assert literal(":smile: [b]").plain == ":smile: [b]"
    assert printable("a\x1b\u200b\u2028…", "latin-1") == "a? ..."
