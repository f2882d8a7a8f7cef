"""Architectures that transformers took over from other code, whose files name and join weights otherwise."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from thresher import PrunedModel, UserError, prune
from thresher.heads import HEADS
from thresher.training.base import load_dense

from .test_every_head import made
from .tiny import ARCHITECTURES, random_inputs

OLDER = {"nomic_bert": "Wqkv", "gte": "qkv_proj", "jina_embeddings_v3": "Wqkv"}
"""What the joined queries, keys and values are called in older files."""
each_older = pytest.mark.parametrize("name", OLDER)
WEIGHTS = "model.safetensors"


def names(folder) -> list[str]:
    with safe_open(folder / WEIGHTS, "pt") as stored:
        return list(stored.keys())


def renamed(folder, change) -> None:
    tensors = {change(name): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def under(prefix: str):
    """Names of an encoder's weights under another prefix, beside those of a head."""
    return lambda name: name if name.startswith("classifier") else prefix + name.removeprefix("gte.")


NOW, BEFORE = {"save_original_format": False}, {}
WAYS = [(name, settings, None) for name in OLDER for settings in (NOW, BEFORE)]
WAYS += [("gte", BEFORE, under("new."))]
every_way = pytest.mark.parametrize(("name", "settings", "change"), WAYS)


def written(model, folder, settings, change) -> None:
    model.save_pretrained(folder, **settings)
    if change is not None:
        renamed(folder, change)


@every_way
@pytest.mark.parametrize("head", ["sequence", "embedding"])
@pytest.mark.usefixtures("no_grad")
def test_a_dense_folder_is_read_under_every_name(name, head, settings, change, tmp_path):
    model = ARCHITECTURES[name](head=head, dtype=torch.float32)
    written(model, tmp_path, settings, change)
    assert any(OLDER[name] in found for found in names(tmp_path)) == (not settings)
    again, missing = load_dense(
        str(tmp_path), next(kind for kind in HEADS if type(model).__name__.endswith(kind.suffix))
    )
    assert not missing
    for key, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], weight), key


@every_way
@pytest.mark.usefixtures("no_grad")
def test_a_pruned_folder_is_read_under_every_name(name, settings, change, tmp_path):
    pruned = made(name, "sequence", dtype=torch.float32)
    pruned.save_pretrained(tmp_path)
    written(pruned.model, tmp_path / "weights", settings, change)
    (tmp_path / "weights" / WEIGHTS).rename(tmp_path / WEIGHTS)
    inputs = random_inputs(pruned.model, [26, 1, 9])
    assert torch.equal(PrunedModel.from_pretrained(tmp_path)(**inputs).logits, pruned(**inputs).logits)


@each_older
@pytest.mark.parametrize("change", ["cut", "missing", "NaN"])
def test_joined_weights_get_the_same_care(name, change, tmp_path):
    prune(ARCHITECTURES[name](dtype=torch.float32)).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    joined = next(found for found in tensors if OLDER[name] in found and found.endswith("weight"))
    if change == "missing":
        del tensors[joined]
    else:
        tensors[joined] = tensors[joined][:-32].clone() if change == "cut" else tensors[joined] * torch.nan
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(UserError, match=r"in place of|is missing|holds NaN"):
        PrunedModel.from_pretrained(tmp_path)
