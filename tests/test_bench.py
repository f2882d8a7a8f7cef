"""The benchmark end to end on a toy model, and the arithmetic of its table."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from tests import toy
from tests.test_tables import benchmark
from thresher import PruningConfig, UserError, prune
from thresher.bench import race
from thresher.bench import run as bench
from thresher.bench.contenders import Contender, contenders, load, prepare
from thresher.bench.extent import QUICK, Extent, extent
from thresher.bench.profile import product_flops
from thresher.cli import app
from thresher.data import load_examples
from thresher.engines import AUTO, chosen
from thresher.inference.load import open_model
from thresher.reports import Bench, versions
from thresher.show.bench_tables import bench_table, fresh_table, profile_table
from thresher.show.wording import count

INSTALLED = {"transformers"} | {
    name for name in ("ctranslate2", "onnxruntime", "openvino") if find_spec(name)
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def make_world(folder: Path) -> Path:
    """A pruned model in `pruned`, and texts for it."""
    toy.write_tsv(folder / "eval.tsv", 40, seed=1)
    toy.save_model(folder / "base")
    model = prune(AutoModelForSequenceClassification.from_pretrained(folder / "base"), PruningConfig())
    model.pruner.thresholds.fill_(0.8)
    model.metadata = {"text": ["text"]}
    model.save_pretrained(folder / "pruned")
    toy.tokenizer().save_pretrained(folder / "pruned")
    return folder


def test_all_contenders_on_one_toy(world, tmp_path):
    said = "--label label --precision fp32,int8 --engine torch --texts 20 --batch-size 8 --repeats 2"
    said += " --max-length 12"
    arguments = ["bench", world / "pruned", "--eval", world / "eval.tsv", *said.split()]
    arguments += ["--no-memory", "--profile", "--out", tmp_path]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["lengths"]["longest"] == 12
    assert (tmp_path / "bench.png").stat().st_size > 1000
    rows = {(row["engine"], row["precision"], row["kind"]): row for row in report["rows"]}
    wanted = contenders(["fp32", "int8"], ["torch"])
    assert set(rows) == {(c.engine, c.precision, c.kind) for c in wanted if c.engine in INSTALLED | {"torch"}}
    assert len(report["skipped"]) == len(wanted) - len(rows)
    exact = rows["transformers", "fp32", "padded"]["quality"]
    for (_, precision, kind), row in rows.items():
        assert row["slowest"] <= row["texts_per_second"] <= row["fastest"]
        assert row["p50_ms"] <= row["p95_ms"]
        if kind != "pruned":  # the same weights, whoever runs them
            far = {"fp32": 0, "int8": 20}[precision]
            assert abs(row["quality"]["accuracy"] - exact["accuracy"]) <= far
        if row["name"].startswith("thresher"):
            assert sum(row["profile"]["shares"].values()) == pytest.approx(1, abs=0.05)
            assert row["profile"]["shares"]["linears"] > 0
            assert row["profile"]["linear_rate"] > 0


def test_on_another_device_models_lie_there_and_answers_here(world, tmp_path, monkeypatch):
    """So that the clock waits for them. The meta device holds no numbers, and says so."""
    _, encoder, _ = open_model(world / "pruned")
    examples = load_examples(str(world / "eval.tsv"), ["text"], split="test")
    given = str(world / "pruned"), encoder, examples, np.arange(4), 2, tmp_path
    setup, work = prepare(*given, device="meta")
    wanted = contenders(["fp32", "int8"], ["torch", "openvino"])
    runners, skipped = bench._load(wanted, setup, encoder, work, QUICK.without, lambda _: None)
    assert not runners
    others = {why for name, why in skipped.items() if not name.startswith(("transformers", "thresher torch"))}
    assert others == {"runs on CPUs alone"}
    assert "meta tensors" in skipped["transformers, sorted, fp32"]
    assert "meta device" in skipped["thresher torch, pruned, fp32"]
    assert "int8 runs on CPUs alone" in skipped["thresher torch, pruned, int8"]
    setup.device = "cpu"
    runners, _ = bench._load(contenders(["fp32"], ["torch"]), setup, encoder, work, (), lambda _: None)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda logits: "here")
    ran = {c: run(work.batches(c)[0][1]) for c, run in runners if c.engine in ("transformers", "torch")}
    assert list(ran.values()) == ["here"] * 4


@pytest.mark.parametrize(
    ("how", "message"),
    [({"device": "abacus"}, "does not find"), ({"device": "meta", "profile": True}, "CPUs alone")],
)
def test_a_device_is_refused_early(how, message):
    with pytest.raises(UserError, match=message):
        bench.bench("nothere", "nothere", ["text"], **how)


@pytest.mark.parametrize(
    ("device", "message"), [("cuda", "There is no NVIDIA GPU here"), ("abacus", "choose cuda or cpu")]
)
def test_the_script_for_gpus_says_what_it_lacks(device, message, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")  # as where there is a driver and no GPU
    (tmp_path / "nvidia-smi").chmod(0o755)
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "THRESHER_DEVICE": device}
    done = subprocess.run([script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_ratios_are_to_the_fastest_dense_rival():
    order = [
        Contender("transformers", "fp32", "padded"),
        Contender("openvino", "fp32"),
        Contender("openvino", "int8"),
        Contender("torch", "fp32", "packed"),
        Contender("torch", "fp32", "pruned"),
        Contender("torch", "bf16", "pruned"),
    ]
    seconds = dict(
        zip(order, np.array([8.0, 4.0, 2.0, 1.8, 1.0, 0.5])[:, None, None] * np.ones((3, 2)), strict=True)
    )
    entries = [race.ratios(contender, seconds, 0.5) for contender in order]
    same = [entry["times_same_precision"] for entry in entries]
    assert same == [0.5, 1.0, 1.0, pytest.approx(4 / 1.8), 4.0, None]
    every = [entry["times_any_precision"] for entry in entries]
    assert every == [0.25, 0.5, 1.0, pytest.approx(2 / 1.8), 2.0, 4.0]
    assert [entry["realised"] for entry in entries] == [None] * 4 + [pytest.approx(0.9), None]


def test_products_are_counted():
    assert product_flops([[7, 3], [5, 3], [5], [], []]) == 2 * 7 * 3 * 5  # a packed linear layer
    assert product_flops([[5], [7, 3], [3, 5], [], []]) == 2 * 7 * 3 * 5  # addmm
    assert product_flops([[7, 3]]) == 0


def test_tables_of_nothing():
    """Where every engine of ours was skipped, or all of them."""
    report = benchmark(rows=[], skipped={"thresher openvino, packed, fp32": "openvino is not installed"})
    assert "not installed" in str(bench_table(report).caption)
    assert profile_table(report).row_count == 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell peak memory")
def test_peak_memory_is_that_of_a_fresh_process(world, monkeypatch):
    monkeypatch.setattr(bench, "contenders", lambda *_: [Contender("torch", "fp32", "pruned")])
    report = bench.bench(str(world / "pruned"), str(world / "eval.tsv"), ["text"], texts=8, repeats=1)
    (row,) = report.rows
    assert 0 <= row.peak_mb < 500
    assert row.resident_mb > 50
    assert 0 < row.cold_seconds < report.seconds
    assert fresh_table(report).row_count == 1
    (older,) = Bench.from_json(without_fresh(report)).rows
    assert (older.cold_seconds, older.resident_mb) == (None, None)


def without_fresh(report: Bench) -> dict:
    """A report as it was written before there was a cold start in it."""
    values = report.to_json()
    for row in values["rows"]:
        del row["cold_seconds"], row["resident_mb"]
    return values


def test_a_quick_run_measures_less_but_what_is_asked(world):
    whole = Extent()
    assert extent(False) == replace(whole, engines=tuple(map(chosen, whole.engines)))
    quick = extent(True, texts=7, memory=None, engines=["torch", "torch"])
    assert (quick.texts, quick.repeats, quick.engines) == (7, QUICK.repeats, ("torch",))
    assert not quick.memory
    assert extent(True, memory=True).memory
    assert extent(True, "cuda").engines == ("torch",)
    for wrong in ("texts", "repeats"):
        with pytest.raises(UserError, match="must be 1 or more"):
            extent(True, **{wrong: 0})


def test_a_quick_run_leaves_out_the_slowest_rival(world, monkeypatch):
    monkeypatch.setattr(bench, "in_fresh_process", lambda *_: pytest.fail("no fresh process in a quick run"))
    wanted = [Contender("transformers", "fp32"), Contender("onnxruntime", "fp32")]
    monkeypatch.setattr(bench, "contenders", lambda *_: wanted)
    report = bench.bench(str(world / "pruned"), str(world / "eval.tsv"), ["text"], quick=True)
    assert report.skipped == {"onnxruntime, sorted, fp32": "left out of a quick run"}
    assert (report.data.texts, report.repeats) == (32, 3)
    assert report.calibration.texts == 32


def test_a_report_names_the_processor_its_instructions_and_the_threads():
    report = replace(
        benchmark(attention="amx", threads=3), versions={"processor": "Some 7, family 6, model 9"}
    )
    caption = str(bench_table(report).caption)
    assert "Some 7, family 6, model 9; instructions of our C++: amx; 3 threads for every engine" in caption
    assert versions()["threads"] == str(torch.get_num_threads())
    assert versions()["instructions"]


def test_an_engine_that_is_missing_is_skipped(world, monkeypatch):
    ours = chosen(AUTO)
    monkeypatch.setattr(Contender, "lacks", lambda self: "nothere" if self.engine != ours else None)
    report = bench.bench(
        str(world / "pruned"), str(world / "eval.tsv"), ["text"], texts=8, repeats=1, memory=False
    )
    assert {row.engine for row in report.rows} == {ours}
    assert report.skipped["openvino, sorted, fp32"] == ("not installed: nothere (pip install '.[openvino]')")
    assert report.skipped["onnxruntime, sorted, fp32"] == "not installed: nothere (pip install '.[bench]')"
    assert all(row.times_any_precision is None for row in report.rows)


def test_an_engine_that_fails_is_skipped_whatever_it_says(world, monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr(bench, "load", fail)
    monkeypatch.setattr(bench, "contenders", lambda *_: [Contender("torch", "fp32", "pruned")])
    report = bench.bench(str(world / "pruned"), str(world / "eval.tsv"), ["text"], texts=8, memory=False)
    assert list(report.skipped.values()) == ["AssertionError: AssertionError"]


def test_our_engine_that_is_not_installed_is_skipped_too(world, monkeypatch):
    from thresher import engines

    monkeypatch.setattr("thresher.engines.base.find_spec", lambda package: None)
    monkeypatch.setattr(bench, "contenders", lambda *_: contenders(["fp32"], ["openvino"])[-2:])
    report = bench.bench(
        str(world / "pruned"), str(world / "eval.tsv"), ["text"], engines=["openvino"], texts=8, memory=False
    )
    assert report.rows == []
    assert report.skipped["thresher openvino, packed, fp32"] == (
        "not installed: openvino (pip install '.[openvino]')"
    )
    with pytest.raises(UserError, match="not installed"):
        engines.check_engine("openvino", "fp32")


@pytest.mark.parametrize(("calls", "rounds"), [(5, None), (6, 1), (9, 2)])
def test_ctrl_c_keeps_the_rounds_that_were_done(world, monkeypatch, tmp_path, calls, rounds):
    """Two engines, a batch each: two calls to load them, two uncounted, then two a round."""
    done = []

    def load(*_):
        def run(rows):
            if len(done) == calls:
                raise KeyboardInterrupt
            done.append(rows)
            return np.zeros((8, 3))

        return run

    monkeypatch.setattr(bench, "load", load)
    monkeypatch.setattr(bench, "contenders", lambda *_: contenders(["fp32"], ["torch"])[-2:])
    arguments = f"bench {world}/pruned --eval {world}/eval.tsv --texts 8 --batch-size 8 --repeats 4"
    result = CliRunner().invoke(app, [*arguments.split(), "--out", str(tmp_path), "--profile"])
    assert result.exit_code == 130, result.output
    assert (tmp_path / "bench.json").exists() == (rounds is not None)
    if rounds is not None:
        report = json.loads((tmp_path / "bench.json").read_text())
        assert report["stopped"]
        assert report["repeats"] == rounds
        assert f"of what was done: {count(rounds, 'round')}." in " ".join(result.output.split())
        assert all(row["peak_mb"] is None for row in report["rows"])
        assert "Where the time goes" not in result.output


def test_ctrl_c_while_memory_is_measured_keeps_the_times(world, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "in_fresh_process", interrupted)
    monkeypatch.setattr(bench, "contenders", lambda *_: [Contender("torch", "fp32", "pruned")])
    report = bench.bench(str(world / "pruned"), str(world / "eval.tsv"), ["text"], texts=8, repeats=1)
    assert report.stopped
    assert report.rows[0].texts_per_second > 0


@pytest.mark.skipif(not find_spec("nncf"), reason="NNCF is not installed")
@pytest.mark.parametrize("kind", ["sorted", "pruned"])
def test_converters_say_nothing(world, tmp_path, capfd, kind):
    import logging

    import rich

    _, encoder, _ = open_model(world / "pruned")
    examples = load_examples(str(world / "eval.tsv"), ["text"], split="test")
    setup, work = prepare(world / "pruned", encoder, examples, np.arange(20), 8, tmp_path)
    contender = Contender("openvino", "int8", kind)
    capfd.readouterr()
    load(contender, setup, encoder)(work.batches(contender)[0][1])
    said = capfd.readouterr()
    assert said.out == ""
    assert "NNCF" not in said.err
    assert "INFO" not in said.err
    assert not rich.get_console().quiet
    assert logging.root.manager.disable == logging.NOTSET


def test_every_long_part_has_a_stage(world, monkeypatch):
    """What runs is told of, and nothing but `done` of `total` is told."""
    stages = {}

    def begin(name, total=None):
        stages[name] = [total, 0]

        def advance(done):
            assert name == list(stages)[-1], "a stage ends where the next begins"
            stages[name][1] += done

        return advance

    def told(name):
        return lambda *_, **__: {"said": list(stages)[-1] == name}

    monkeypatch.setattr(bench, "contenders", lambda *_: contenders(["fp32"], ["torch"])[-2:])
    monkeypatch.setattr(
        bench, "in_fresh_process", lambda *_: {"peak_mb": float(list(stages)[-1] == "fresh processes")}
    )
    monkeypatch.setattr(bench, "parts", told("profile"))
    monkeypatch.setattr(bench, "matmul_rate", told("peak rate of this machine"))
    report = bench.bench(
        *(str(world / "pruned"), str(world / "eval.tsv"), ["text"]),
        **{"texts": 8, "repeats": 1, "profile": True, "stage": begin},
    )
    assert list(stages) == [
        *("loading the model", "reading texts", "counting FLOPs", "peak rate of this machine"),
        *("loading engines", "timing", "fresh processes", "profile"),
    ]
    assert all(total is None or total == done > 0 for total, done in stages.values()), stages
    assert all(row.peak_mb and row.profile["said"] for row in report.rows)
    assert all(rate["said"] for rate in report.matmul_rate.values())


def test_an_unknown_precision_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match="fp16"):
        bench.bench(str(tmp_path / "none"), "none.tsv", ["text"], precisions=["fp16"])
