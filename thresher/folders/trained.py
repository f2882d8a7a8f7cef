"""A state dict that says which model it is of, so that a checkpoint that holds it alone can be opened."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from thresher.errors import UserError, first_line
from thresher.folders.model_config import make_config
from thresher.folders.read import damaged, refuse_link
from thresher.folders.weights import class_saved

KEY = "_extra_state"  # PyTorch's name for what `Module.get_extra_state` answers
MODEL, PRUNER, TRANSLATOR = "model.", "pruner.", "translator."


def described(model: PreTrainedModel, block: dict[str, Any]) -> Tensor:
    """The model's config and the block, as JSON in a uint8 tensor, which every format of weights can hold."""
    config = json.loads(model.config.to_json_string(use_diff=True))
    config |= {
        "architectures": [class_saved(model)],
        "model_type": model.config.model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    text = json.dumps({"config": config, "token_pruning": block}, default=str)
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def trained_weights(folder: str, subfolder: str | None = None) -> Path | None:
    """The weights in a folder that Trainer wrote of a `PrunedModel`; None if it is no such folder."""
    file = Path(folder, subfolder or "", SAFE_WEIGHTS_NAME)
    if not os.path.isfile(file):  # False as well where the folder may not be read
        return None
    refuse_link(file)
    names = _names(file)
    return file if KEY in names or any(name.startswith(PRUNER) for name in names) else None


def description(file: Path) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """The config, and the block, of the model that a file of Trainer holds.

    Raises
    ------
    UserError
        If an older Thresher wrote it, which left no description there, or it cannot be run.
    """
    if KEY not in _names(file):
        raise UserError(
            f"'{file.parent}' holds the weights that Trainer saved of a PrunedModel, without its settings. "
            "Build the model as before the training, model.load_state_dict(safetensors.torch.load_file("
            f"'{file}')), and model.save_pretrained(folder)."
        )
    try:
        with safe_open(file, "pt") as stored:
            text = stored.get_tensor(KEY).to(torch.uint8)  # a mean of several state dicts has made it floats
    except (SafetensorError, OSError) as error:
        raise damaged(file, error, "If it was copied, copy it again.") from error
    try:
        found = json.loads(bytes(text.tolist()))
        config, block = dict(found["config"]), dict(found["token_pruning"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"'{file.parent}' holds weights whose settings cannot be read ({first_line(error)}). Build the "
            "model as before the training, load_state_dict, and save_pretrained(folder)."
        ) from error
    if (obstacle := block.pop("obstacle", None)) is not None:
        raise UserError(f"'{file.parent}' cannot be opened: {obstacle}")
    return make_config(config, str(file.parent)), block


def parts(tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The transformers model's tensors under their own names, and what is learned of pruning: the pruner's
    tensors under their own names, and the translator's."""
    model = {name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
    own = (PRUNER, TRANSLATOR)
    return model, {
        name.removeprefix(PRUNER): tensor for name, tensor in tensors.items() if name.startswith(own)
    }


def _names(file: Path) -> set[str]:
    try:
        with safe_open(file, "pt") as stored:
            return set(stored.keys())
    except (SafetensorError, OSError):
        return set()  # whoever reads the tensors will say what is wrong
