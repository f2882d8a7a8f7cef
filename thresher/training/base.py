"""The model that is given to be pruned, and how it is pruned whatever the method."""

from __future__ import annotations

from dataclasses import replace
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification

from thresher.config import PruningConfig
from thresher.errors import UserError, first_line
from thresher.families import family_for, family_of
from thresher.folders import check_weights, foreign_weights
from thresher.locate import locate
from thresher.state import trained_weights
from thresher.store import BLOCK, load_config
from thresher.tasks import Task
from thresher.text import special_ends


def load_base(path: str) -> tuple[Any, Task]:
    """A fine-tuned dense model in float32, and its task.

    Raises
    ------
    UserError
        If nothing is there, its architecture is not supported, or its head is not trained.
    """
    config = load_config(path)
    family_for(config)
    model, missing = load_dense(path)
    if inner := [name for name in missing if ".layer" in name]:
        raise UserError(
            f"{path} is incomplete: '{inner[0]}' is missing, which its config counts. Copy it again."
        )
    if missing:
        raise UserError(
            f"{path} has no trained head ({', '.join(missing[:2])} are missing). "
            "Run `thresher finetune` first, and prune what it writes."
        )
    return model, Task.of(config)


def load_dense(path: str, **options: Any) -> tuple[Any, list[str]]:
    """A dense model in float32, and the names of weights that it should have but does not."""
    where = locate(path)
    if trained_weights(where) is not None:
        raise UserError(
            f"'{path}' holds what Trainer saved of a PrunedModel. Make it a folder of its own first: "
            f"PrunedModel.from_pretrained('{path}').save_pretrained(folder)."
        )
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            where, dtype=torch.float32, output_loading_info=True, **options
        )
    except (OSError, SafetensorError, RuntimeError, UnpicklingError, ValueError, KeyError) as error:
        said = first_line(error).rstrip(".!")
        if "ignore_mismatched_sizes" in said:
            said = "they have other shapes than the config says"
        why = foreign_weights(where) or f"{said}. If it was copied, copy it again."
        raise UserError(f"No weights could be loaded from '{path}': {why}") from error
    check_weights(model, path)
    if hasattr(model.config, BLOCK):  # a pruned model may be pruned again, from its dense weights
        delattr(model.config, BLOCK)
    return model, sorted(loading["missing_keys"])


def pruning_of(model: Any, tokenizer: Any, pruning: PruningConfig) -> PruningConfig:
    """What holds whatever the method: tokens that a [CLS] head will never read go after the last attention,
    and a last token that says nothing ([SEP]) stays until then, unless the suffix is given."""
    free = family_of(model).pools_prefix and pruning.pruner != "none"
    suffix = pruning.suffix
    if suffix is None:
        suffix = int(special_ends(tokenizer)[1] > 0)
    return replace(pruning, prefix_only_at_end=free, suffix=suffix)


def device() -> str:
    """Where there is most to compute with."""
    return "cuda" if torch.cuda.is_available() else "cpu"
