"""Rivals answer as transformers does, from what they converted, or say why not."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import toy
from tests.test_bench import make_world
from tests.tiny import FAMILIES, random_inputs
from thresher import PruningConfig, prune
from thresher.bench import run as bench
from thresher.bench.contenders import Contender, load, prepare
from thresher.bench.rivals import Setup
from thresher.data import load_examples
from thresher.inference.load import open_model


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    "name", [name for name in ("onnxruntime", "openvino") if find_spec("nncf") and find_spec(name)]
)
def test_a_rival_opens_what_it_converted_without_pytorch(world, tmp_path, name):
    """Its cold start would be that of PyTorch else."""
    _, encoder, _ = open_model(world / "pruned")
    examples = load_examples(str(world / "eval.tsv"), ["text"], split="test")
    setup, work = prepare(str(world / "pruned"), encoder, examples, np.arange(8), 8, tmp_path)
    rows = work.sorted[0][1]
    answer = load(Contender(name, "fp32"), setup, encoder)(rows)
    program = f"""
import json, sys
from pathlib import Path
import numpy as np
from thresher.bench.fresh import _rival
contender = {{"engine": "{name}", "precision": "fp32"}}
task = {{"contender": contender, "folder": "none", "threads": 1, "device": "cpu", "work": "{tmp_path}"}}
run = _rival(task)
print(json.dumps(run({{k: np.array(v) for k, v in json.load(sys.stdin).items()}}).tolist()))
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    told = json.dumps({key: values.tolist() for key, values in rows.items()})
    done = subprocess.run([sys.executable, "-c", program], input=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), answer, atol=1e-5)


@pytest.mark.skipif(not find_spec("ctranslate2"), reason="CTranslate2 is not installed")
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert"])
def test_ctranslate2_answers_as_transformers_does(family, tmp_path):
    from thresher.bench.rivals import ctranslate2

    model = FAMILIES[family]()
    prune(model, PruningConfig()).save_pretrained(tmp_path / "model")
    toy.tokenizer().save_pretrained(tmp_path / "model")
    batch = random_inputs(model, [9, 4, 1])
    ids = batch["input_ids"]  # a pad among words has no position in transformers' RoBERTa
    ids[(ids == model.config.pad_token_id) & batch["attention_mask"].bool()] += 4
    with torch.inference_mode():
        exact = model.eval()(**batch).logits
    for precision, near in (("fp32", 1e-4), ("int8", 0.2)):
        setup = Setup(str(tmp_path / "model"), [batch], {}, torch.get_num_threads(), tmp_path / "work")
        setup.work.mkdir(exist_ok=True)
        for _ in "converts", "opens what was converted":
            found = ctranslate2.load(setup, precision)(batch)
            assert (found - exact).abs().max() < near * exact.abs().max(), precision


@pytest.mark.skipif(not find_spec("ctranslate2"), reason="CTranslate2 is not installed")
@pytest.mark.parametrize("family", ["electra", "modernbert"])
def test_ctranslate2_says_what_it_does_not_convert(family, tmp_path, monkeypatch):
    model = prune(FAMILIES[family](), PruningConfig())
    model.metadata = {"text": ["text"]}
    model.save_pretrained(tmp_path / "model")
    toy.tokenizer().save_pretrained(tmp_path / "model")
    toy.write_tsv(tmp_path / "eval.tsv", 8, seed=1)
    monkeypatch.setattr(bench, "contenders", lambda *_: [Contender("ctranslate2", "fp32")])
    report = bench.bench(str(tmp_path / "model"), str(tmp_path / "eval.tsv"), ["text"], memory=False)
    assert report.rows == []
    assert report.skipped == {
        "ctranslate2, sorted, fp32": f"CTranslate2 does not convert models of the type {family}"
    }
