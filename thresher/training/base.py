"""The model that is given to be pruned, and how it is pruned whatever the method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from thresher.config import PruningConfig
from thresher.errors import UserError
from thresher.families import family_of
from thresher.folders.locate import locate
from thresher.folders.read import one_save
from thresher.folders.sentence import attach
from thresher.folders.trained import trained_weights
from thresher.folders.weights import build, head_named, look, weight_files
from thresher.heads import EmbeddingHead, Head, head_of
from thresher.inputs.text import special_ends
from thresher.pruners import PRUNERS
from thresher.store import BLOCK, load_config
from thresher.tasks import Task, task_of


def load_base(path: str) -> tuple[Any, Task]:
    """A fine-tuned dense model in float32, and its task.

    Raises
    ------
    UserError
        If nothing is there, its architecture is not supported, or its head is not trained.
    """
    config = load_config(path)
    head = head_named(config)
    model, missing = load_dense(path, head)
    if head is EmbeddingHead:  # which does not ask the pooler
        missing = [name for name in missing if not name.startswith("pooler.")]
    if inner := [name for name in missing if ".layer" in name]:
        raise UserError(
            f"{path} is incomplete: '{inner[0]}' is missing, which its config counts. Copy it again."
        )
    if missing:
        raise UserError(
            f"{path} has no trained head ({', '.join(missing[:2])} are missing). "
            "Fine-tune it first: `thresher finetune`, or thresher.training.finetune."
        )
    return model, task_of(config)


@one_save
def load_dense(
    path: str, head: type[Head] | None = None, new_head: bool = False, **settings: Any
) -> tuple[Any, list[str]]:
    """A dense model in float32, and the names of weights that it should have but does not.

    Parameters
    ----------
    path : str
        A folder or hub name.
    head : type of Head, optional
        What the model shall answer. Default: what its config says.
    new_head : bool
        Draw the head anew where it is of another shape.
    **settings
        What the config shall say instead.

    Raises
    ------
    UserError
        If nothing is there, its architecture is not supported, or its files are damaged.
    """
    where = locate(path)
    if trained_weights(where) is not None:
        raise UserError(
            f"'{path}' holds what Trainer saved of a PrunedModel. Make it a folder of its own first: "
            f"PrunedModel.from_pretrained('{path}').save_pretrained(folder)."
        )
    config = load_config(where)
    if hasattr(config, BLOCK):  # a pruned model may be pruned again, from its dense weights
        delattr(config, BLOCK)
    config.update(settings)
    stored = look(weight_files(where, pickled=True))
    model, missing = build(path, config, stored, new_head, head, dtype=torch.float32)
    attach(model, where, pickled=True)
    return model, missing


def pruning_of(model: Any, tokenizer: Any, pruning: PruningConfig) -> PruningConfig:
    """What holds whatever the method, unless the settings say otherwise: tokens that a [CLS] head will never
    read go after the last attention, a last token that says nothing ([SEP]) stays until then, and what a head
    reads of dropped tokens is translated."""
    reads, drops = head_of(family_of(model)).reads, _drops(pruning)
    if pruning.suffix is None:
        pruning = replace(pruning, suffix=int(special_ends(tokenizer)[1] > 0))
    if pruning.dropped is None and reads == "all" and drops:
        pruning = replace(pruning, dropped="translate")
    return replace(pruning, prefix_only_at_end=pruning.prefix_only_at_end or (reads == "prefix" and drops))


def _drops(pruning: PruningConfig) -> bool:
    return pruning.pruner not in PRUNERS or PRUNERS[pruning.pruner].drops


def device() -> str:
    """Where there is most to compute with."""
    return "cuda" if torch.cuda.is_available() else "cpu"
