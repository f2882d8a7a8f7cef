"""Folders that an earlier version of the code wrote answer as they did then: `tests/folders/NAME`.

Each folder holds what `PrunedModel.save_pretrained` wrote, and ``answers.json``: inputs, and for every budget
the logits, the tokens kept and the FLOPs. The folders must never be written anew.
"""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from thresher import PrunedModel

FOLDERS = sorted((Path(__file__).parent / "folders").iterdir())


def _read(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    held = json.loads((folder / "answers.json").read_text())
    return {key: torch.tensor(values) for key, values in held["inputs"].items()}, held["answers"]


@torch.no_grad()
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_answers_as_it_did(folder):
    model = PrunedModel.from_pretrained(folder)
    inputs, answers = _read(folder)
    dense = answers.pop("dense")
    for name, answer in answers.items():
        found = model(**inputs, budget=None if name == "None" else float(name))
        assert found.trace.kept.tolist() == answer["kept"]
        torch.testing.assert_close(found.logits, torch.tensor(answer["logits"]), atol=1e-5, rtol=0)
        assert found.trace.flops.tolist() == answer["flops"]
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    for logits in (model(**inputs, dense=True).logits, plain(**inputs).logits):
        torch.testing.assert_close(logits, torch.tensor(dense["logits"]), atol=1e-5, rtol=0)


def test_what_a_folder_says_of_its_training_is_read():
    model = PrunedModel.from_pretrained(FOLDERS[[f.name for f in FOLDERS].index("ladder")])
    assert model.budgets == (0.7, 0.4)
    assert model.pruning.offset == [0.125, -0.25, 0.125]
    assert model.metadata["base_quality"] == {"accuracy": 90.0, "macro_f1": 89.0}
