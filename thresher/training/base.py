"""The model that is given to be pruned, and how it is pruned whatever the method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification

from thresher.config import PruningConfig
from thresher.errors import UserError, first_line
from thresher.families import family_for, family_of
from thresher.store import BLOCK, load_config
from thresher.tasks import Task


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
    if missing:
        raise UserError(
            f"{path} has no trained head ({', '.join(missing[:2])} are missing). "
            "Run `thresher finetune` first, and prune what it writes."
        )
    return model, Task.of(config)


def load_dense(path: str, **options: Any) -> tuple[Any, list[str]]:
    """A dense model in float32, and the names of weights that it should have but does not."""
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True, **options
        )
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"No weights could be loaded from '{path}': {first_line(error)}. If it was copied, copy it again."
        ) from error
    if hasattr(model.config, BLOCK):  # a pruned model may be pruned again, from its dense weights
        delattr(model.config, BLOCK)
    return model, sorted(loading["missing_keys"])


def pruning_of(model: Any, tokenizer: Any, pruning: PruningConfig) -> PruningConfig:
    """What holds whatever the method: tokens that a [CLS] head will never read go after the last attention,
    and a last token that says nothing ([SEP]) stays until then, unless the suffix is given."""
    free = family_of(model).pools_prefix and pruning.pruner != "none"
    suffix = pruning.suffix
    if suffix is None:
        suffix = int(tokenizer("a")["input_ids"][-1] in tokenizer.all_special_ids)
    return replace(pruning, prefix_only_at_end=free, suffix=suffix)


def device() -> str:
    """Where there is most to compute with."""
    return "cuda" if torch.cuda.is_available() else "cpu"
