"""What commands are given: models and files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests import toy
from thresher import PruningConfig, prune


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A base, a pruned model, and files."""
    folder = tmp_path_factory.mktemp("world")
    toy.write_tsv(folder / "train.tsv", 60)
    toy.write_tsv(folder / "eval.tsv", 40, seed=1)
    toy.save_model(folder / "base")
    model = prune(AutoModelForSequenceClassification.from_pretrained(folder / "base"), PruningConfig())
    model.pruner.thresholds.copy_(torch.tensor([0.5, 0.8, 0.9, 1.0]))
    model.metadata = {"text": ["text"], "base": "base", "base_quality": {"accuracy": 50.0}}
    model.save_pretrained(folder / "pruned")
    toy.tokenizer().save_pretrained(folder / "pruned")
    return folder
