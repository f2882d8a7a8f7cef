"""Tables of reports: what they say, in words that are right, whatever the report holds."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from thresher.errors import UserError
from thresher.reports import (
    Bench,
    BenchData,
    BenchRow,
    CalibratedOn,
    Calibration,
    CalibrationData,
    Choice,
    Evaluation,
    EvaluationData,
    Lengths,
    Profile,
    Pruning,
    Ran,
    Rates,
    Speed,
    TrainingData,
)
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


KEPT = {"flops_ratio": 0.49, "kept_share": [0.5, 0.25], "kept_tokens": [5.0, 2.5], "mean_tokens": 10.0}
BASICS = {"versions": {}, "seconds": 1.0}


def training(**more: Any) -> Pruning:
    data = TrainingData(
        train="train.tsv",
        text=["text"],
        eval="dev.tsv",
        train_texts=10,
        held_out_texts=1,
        eval_texts=1,
        max_length=64,
        truncated=0,
    )
    made = {
        "model": "base",
        "out": ODD,
        "task": "single-label",
        "metric": "accuracy",
        "data": data,
        "settings": {},
        "quality": {"base": {"accuracy": 90.0}, "pruned": {"accuracy": 90.67}},
        "resumed": False,
        "pruning": {},
        "ladder": [],
        "history": [],
        "agreement": 99.0,
        "drop": -0.67,
        "drop_interval": (-1.5, 0.2),
    }
    return Pruning(**BASICS, **KEPT, **(made | more))


RATES = {"texts_per_second": 100.0, "slowest": 90.0, "fastest": 110.0, "with_tokenizing": 80.0}
SPEED = Speed(
    transformers=Rates(**RATES),
    packed=Rates(**RATES | {"texts_per_second": 251.0}),
    thresher=Rates(**RATES),
    ratio=4.6,
    ratio_spread=[4.1, 4.9],
    packed_ratio=2.5,
    pruning_ratio=1.84,
    texts=1,
    batch=32,
    repeats=1,
    threads=1,
    device="cpu",
    dtype="float32",
    precision="fp32",
)


def evaluation(**more: Any) -> Evaluation:
    data = EvaluationData(
        eval="dev.tsv", text=["text"], label="label", texts=1, max_length=1, trained_length=2, truncated=0
    )
    quality = {"base": {"accuracy": 90.0}, "dense": {"accuracy": 91.0}, "pruned": {"accuracy": 90.67}}
    made = {
        "model": ODD,
        "base": "base",
        "base_measured_on": ODD,
        "data": data,
        "quality": quality,
        "settings": Ran(budget=None, precision="fp32", engine="torch", threads=1),
        "speed": SPEED,
    }
    return Evaluation(**BASICS, **KEPT, **(made | more))


CALIBRATION = Calibration(
    **BASICS,
    **KEPT,
    model="base",
    out=ODD,
    task="single-label",
    metric="agreement",
    data=CalibrationData(
        texts="a.tsv", text=["text"], max_length=64, searched_on=1, chosen_on=1, checked_on=1
    ),
    seed=0,
    max_change=0.01,
    change=0.01,
    standard_error=0.001,
    stepped_back=1,
    pruning={},
)
SKIPPED = {
    "onnxruntime, sorted, fp32": "not installed: onnx (pip install '.[bench]')",
    "openvino, sorted, fp32": "not installed: openvino (pip install '.[openvino]')",
    "openvino, sorted, int8": "not installed: openvino (pip install '.[openvino]')",
    "thresher openvino, packed, fp32": "not installed: openvino (pip install '.[openvino]')",
    "thresher openvino, pruned, fp32": "not installed: openvino (pip install '.[openvino]')",
    "thresher torch, packed, int8": "RuntimeError: [/red] :smile:",
}


def benchmark(**more: Any) -> Bench:
    row = BenchRow(
        engine="torch",
        name="thresher torch, pruned",
        precision="int8",
        kind="pruned",
        peak_mb=1234.0,
        quality={"accuracy": 91.0},
        tokens_per_second=123456.0,
        p50_ms=123.4,
        p95_ms=1234.5,
        texts_per_second=100.0,
        slowest=90.0,
        fastest=110.0,
        times_same_precision=12.34,
        times_any_precision=2.34,
        realised=0.9,
        profile=Profile(shares={"linears": 0.5, "Python": 0.5}, linear_rate=1e12),
    )
    made = {
        "model": ODD,
        "data": BenchData(eval="a.tsv", text=["text"], label=None, texts=1, max_length=64),
        "lengths": Lengths(shortest=3, longest=3, mean=3.0),
        "batch": 32,
        "threads": 1,
        "repeats": 1,
        "stopped": False,
        "attention": "torch",
        "calibration": CalibratedOn(texts=1, also_timed=0),
        "flops_ratio": 0.49,
        "rows": [row],
        "matmul_rate": {"fp32": 2e12},
        "skipped": SKIPPED,
    }
    return Bench(**BASICS, **(made | more))


TABLES = [
    (training_table, training()),
    (calibration_table, CALIBRATION),
    (evaluation_table, evaluation()),
    (bench_table, benchmark()),
]


@pytest.mark.parametrize(("table", "report"), TABLES)
def test_names_are_printed_as_they_are(table: Any, report: Any) -> None:
    assert ODD in one_line(table(report))


@pytest.mark.parametrize(("table", "report"), TABLES)
def test_one_is_not_plural(table: Any, report: Any) -> None:
    said = one_line(table(report))
    for noun in ("text", "thread", "time", "round", "paired run"):
        assert f" 1 {noun}s" not in said


def damaged(report: Any, value: Any) -> Any:
    """The report with `value` for every float."""
    if is_dataclass(report):
        return replace(report, **{f.name: damaged(getattr(report, f.name), value) for f in fields(report)})
    if isinstance(report, dict):
        return {name: damaged(item, value) for name, item in report.items()}
    if isinstance(report, list | tuple):
        return [damaged(item, value) for item in report]
    return value if isinstance(report, float) else report


@pytest.mark.parametrize("value", [None, NAN])
@pytest.mark.parametrize(("table", "report"), [*TABLES, (profile_table, benchmark())])
def test_what_is_missing_is_a_dash(table: Any, report: Any, value: float | None) -> None:
    said = one_line(table(damaged(report, value)))
    assert " -" in said
    assert "nan" not in said.lower()
    assert "None" not in said


def test_points_lost_and_gained() -> None:
    assert "Points gained: 0.67 95 %: -0.20 to 1.50" in one_line(training_table(training()))
    lost = training(drop=0.67, drop_interval=(-0.2, 1.5))
    assert "Points lost: 0.67 95 %: -0.20 to 1.50" in one_line(training_table(lost))
    assert points(-0.001, [-0.004, 0.0]) == ("lost", "0.00", "0.00 to 0.00")
    assert points(None, None) == ("lost", "-", "- to -")
    choice = Choice(
        bound=1.0,
        drop=-0.5,
        error=0.1,
        interval=(-1.0, 0.1),
        kept=True,
        clear=True,
        flops_ratio=0.49,
        texts=1,
        tried=[],
    )
    said = one_line(training_table(training(max_drop=choice)))
    assert "0.50 points of accuracy gained (95 %: -0.10 to 1.00) on 1 held-out text" in said
    assert "1 point may be lost" in said


def test_what_packing_alone_gives() -> None:
    said = printed(evaluation_table(evaluation()))
    rows = {line.split("│")[1].strip(): line.split() for line in said.splitlines() if "│" in line}
    packed = rows["dense, packed"]
    assert {"91.00", "1.000", "251", "80.0", "2.50"} <= set(packed)
    assert "Packing alone gives 2.50 x" in said
    assert "pruning then gives 1.84 x" in said
    assert list(rows).index("dense, packed") == list(rows).index("dense") + 1


def test_the_quality_of_packed_is_told_where_it_was_measured() -> None:
    quality = evaluation().quality
    other = evaluation(quality=quality | {"pruned, fp32": {"accuracy": 90.7}})
    line = next(line for line in printed(evaluation_table(other)).splitlines() if "dense, packed" in line)
    assert line.split("│")[2].strip() == "-"


def test_without_speed_there_are_no_rates() -> None:
    assert "texts/s" not in one_line(evaluation_table(evaluation(speed=None)))


@pytest.mark.parametrize("report", [training(), CALIBRATION, evaluation(), benchmark()])
def test_reports_survive_json(report: Any) -> None:
    """Also what an experiment adds, which is passed over, and a file without a version."""
    values = json.loads(json.dumps(report.to_json()))
    assert type(report).from_json(values | {"more": 1}) == report
    del values["version"]
    assert type(report).from_json(values) == report
    with pytest.raises(UserError, match="version 2; this Thresher reads version 1"):
        type(report).from_json(values | {"version": 2})
    with pytest.raises(UserError, match=f"'other', not of {report.command}"):
        type(report).from_json(values | {"command": "other"})


def test_reports_need_no_torch() -> None:
    code = "import sys, thresher.reports\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


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
