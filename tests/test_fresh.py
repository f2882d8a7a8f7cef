"""What a fresh process tells of a contender."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.test_bench import make_world
from thresher.bench.contenders import Contender
from thresher.bench.fresh import _encoded, in_fresh_process
from thresher.bench.rivals import Setup
from thresher.data import load_examples
from thresher.inference.load import open_model


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("engine", ["transformers", "torch"])
def test_a_fresh_process_runs_on_the_device(world, caplog, engine):
    """The meta device holds no numbers, and says so."""
    setup = Setup(str(world / "pruned"), [{"input_ids": None}], {}, 1, world, device="meta")
    texts = {"first": ["good"], "max_length": 9}
    kind = "pruned" if engine == "torch" else "sorted"
    with caplog.at_level("WARNING"):
        assert in_fresh_process(Contender(engine, "fp32", kind), setup, "a.tsv", texts) == {}
    assert "meta" in caplog.text


def test_what_a_fresh_process_could_not_measure_is_left_out(world, monkeypatch, caplog):
    """Another system than Linux has no count of memory, and a process may be killed."""
    said = 'noise {"\n{"cold_seconds": 2.5}\n'
    done = subprocess.CompletedProcess([], 1, stdout=said, stderr="Traceback\nKilled")
    monkeypatch.setattr("thresher.bench.fresh.subprocess.run", lambda *_, **__: done)
    setup = Setup(str(world / "pruned"), [{"input_ids": None}], {}, 1, world)
    with caplog.at_level("WARNING"):
        found = in_fresh_process(Contender("torch", "fp32", "pruned"), setup, "a.tsv", {})
    assert found == {"cold_seconds": 2.5}
    assert "Killed" in caplog.text


def test_the_first_text_is_cut_as_the_encoder_cuts_it(world):
    _, encoder, _ = open_model(world / "pruned", max_length=9)
    text = load_examples(str(world / "eval.tsv"), ["text"], split="test")["text"][0] + " good" * 20
    wanted = encoder.pad(encoder.encode([text]))
    task = {"folder": str(world / "pruned"), "max_length": 9, "first": [text], "inputs": list(wanted)}
    found = _encoded(task)
    assert list(found) == list(wanted)
    assert found["input_ids"].shape == (1, 9)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)
