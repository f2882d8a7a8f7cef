"""The folder of a pruned model: a transformers folder with a block in config.json and a few tensors more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from thresher.errors import UserError, first_line

BLOCK = PREFIX = "token_pruning"


def save(
    model: PreTrainedModel, pruner_state: dict[str, Tensor], block: dict[str, Any], path: str | Path
) -> None:
    """Write `model` with the pruner's tensors beside its own, and `block` in its config."""
    if hasattr(model, "get_base_model"):
        raise UserError("An adapter cannot be saved pruned: merge it first (model.merge_and_unload()).")
    named = {f"{PREFIX}.{name}": tensor.detach().cpu() for name, tensor in pruner_state.items()}
    setattr(model.config, BLOCK, block)
    try:
        model.save_pretrained(path, state_dict=model.state_dict() | named)
    finally:
        delattr(model.config, BLOCK)


def load(path: str | Path) -> tuple[PreTrainedModel, dict[str, Tensor], dict[str, Any]]:
    """Read the dense model, the pruner's tensors and the block.

    Raises
    ------
    UserError
        If nothing is there, or it holds no pruned model, or not all of it.
    """
    config = load_config(path)
    block = getattr(config, BLOCK, None)
    if block is None:
        raise UserError(
            f"{path} holds a model that is not pruned (its config.json has no '{BLOCK}'). "
            "Run `thresher prune`."
        )
    delattr(config, BLOCK)
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(path):
        # Copies: what lies in the file is not aligned, and BLAS then rounds otherwise than before saving;
        # nor may a folder that is written again change a model in use.
        try:
            tensors |= {name: tensor.clone() for name, tensor in load_file(file).items()}
        except SafetensorError as error:
            raise UserError(f"{file} is damaged ({first_line(error)}). Copy or prune it again.") from error
    state = {
        name.removeprefix(f"{PREFIX}."): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(f"{PREFIX}.")
    }
    # Weights are handed over, so that transformers does not report the pruner's as unexpected.
    kind = getattr(transformers, config.architectures[0])
    model, report = kind.from_pretrained(None, config=config, state_dict=tensors, output_loading_info=True)
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{path} is incomplete: '{missing[0]}' is missing. Copy or prune it again.")
    return model, state, block


def load_config(path: str | Path) -> Any:
    """The transformers config of a folder or hub name.

    Raises
    ------
    UserError
        If there is none, or transformers does not know its architecture.
    """
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        what = f"No model could be opened at '{path}'"
        if isinstance(error, OSError) and not Path(path).is_dir():
            what = f"There is no folder '{path}', and from the Hugging Face hub it could not be had"
        raise UserError(f"{what}: {first_line(error)}") from error


def _weight_files(path: str | Path) -> list[str]:
    """One safetensors file, or the shards that the index names."""
    index = cached_file(str(path), SAFE_WEIGHTS_INDEX_NAME, _raise_exceptions_for_missing_entries=False)
    if index is None:
        names = {SAFE_WEIGHTS_NAME}
    else:
        names = set(json.loads(Path(index).read_text())["weight_map"].values())
    try:
        return [str(cached_file(str(path), name)) for name in sorted(names)]
    except OSError as error:
        raise UserError(f"{path} has no safetensors weights: {first_line(error)}") from error
