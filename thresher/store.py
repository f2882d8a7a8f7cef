"""The folder of a pruned model: a transformers folder with a block in config.json, and a small file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from thresher import state
from thresher.atomic import replacing_folder
from thresher.config import version_of
from thresher.errors import UserError, first_line, one_line
from thresher.folders import check_config, check_weights, foreign_weights, refuse_adapter
from thresher.locate import locate, near

BLOCK = PREFIX = "token_pruning"
FILE = f"{BLOCK}.safetensors"  # the pruner's tensors; stock transformers does not look for it
WEIGHTS = re.compile(rf"model[-\d]*(-of-\d+)?\.safetensors(\.index\.json)?|{re.escape(FILE)}")
"""Files that hold a model's weights, none of which may outlive the model."""
OWN_FILE = 3  # version from which they lie there; before, they lay among the model's, under PREFIX


def save(
    model: PreTrainedModel,
    pruner_state: dict[str, Tensor],
    block: dict[str, Any],
    path: str | Path,
    **options: Any,
) -> None:
    """Write `model` with `block` in its config, and the pruner's tensors to a file beside it. A folder that
    exists is replaced in one step; files of other kinds stay in it.

    `options` are those of transformers' ``save_pretrained``.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in pruner_state.items()}
    with replacing_folder(Path(path).expanduser(), keep=lambda name: not WEIGHTS.fullmatch(name)) as folder:
        setattr(model.config, BLOCK, block)
        try:
            model.save_pretrained(folder, **options)
        finally:
            delattr(model.config, BLOCK)
        save_file(tensors, folder / FILE, metadata={"format": "pt"})


def load(path: str | Path, **hub: Any) -> tuple[PreTrainedModel, dict[str, Tensor], dict[str, Any]]:
    """Read the dense model, the pruner's tensors and the block.

    Parameters
    ----------
    path : str or Path
        A folder or hub name; or a folder or checkpoint that transformers' Trainer saved.
    **hub
        Options of `thresher.locate.ASKING`.

    Raises
    ------
    UserError
        If nothing is there, or it holds no pruned model, or not all of it.
    """
    where = locate(path, **hub)
    config = load_config(where, **hub)
    block = getattr(config, BLOCK, None)
    if block is None:
        raise UserError(
            f"{path} holds a model that is not pruned (its config.json has no '{BLOCK}'). "
            "Run `thresher prune`."
        )
    delattr(config, BLOCK)
    version = version_of(block)
    if (file := state.trained_weights(where, hub.get("subfolder"))) is not None:
        tensors, own = state.parts(_read(file))
    else:
        tensors = {}
        for shard in _weight_files(where, **hub):
            tensors |= _read(shard)
        own = {name: tensors.pop(name) for name in list(tensors) if name.startswith(f"{PREFIX}.")}
        own = {name.removeprefix(f"{PREFIX}."): tensor for name, tensor in own.items()}
        if version >= OWN_FILE:
            own = _read(_own_file(where, **hub))
    return _assembled(path, config, tensors), own, block


def check_state(path: str | Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Refuse the tensors of a pruner that are not all there, of another shape, or not finite.

    Raises
    ------
    UserError
        With the tensor's name.
    """
    again = "Copy or prune it again."
    if missing := sorted(set(wanted) - set(found)):
        raise UserError(f"{path} is incomplete: '{PREFIX}.{missing[0]}' is missing. {again}")
    if unknown := sorted(set(found) - set(wanted)):
        raise UserError(f"{path} holds a '{PREFIX}.{unknown[0]}' that its pruner does not know. {again}")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{list(tensor.shape)} in place of {list(wanted[name].shape)}"
            raise UserError(f"{path} is damaged: '{PREFIX}.{name}' has the shape {shapes}. {again}")
        if not tensor.isfinite().all():  # a threshold that is NaN drops every token, and says nothing
            raise UserError(f"{path} is damaged: '{PREFIX}.{name}' holds NaN or infinity. {again}")


def load_config(path: str | Path, **hub: Any) -> Any:
    """The transformers config of a folder or hub name.

    Raises
    ------
    UserError
        If there is none, transformers does not know its architecture, or what lies there is no whole model
        of full precision: an adapter, a quantised model, a file for another library.
    """
    where = locate(path, **hub)
    if (file := state.trained_weights(where, hub.get("subfolder"))) is not None:
        config, block = state.description(file)
        setattr(config, BLOCK, block)
        return config
    try:
        refuse_adapter(where, **hub)
        check_config(where, **hub)
        config = AutoConfig.from_pretrained(where, **hub)
    except UserError:
        raise
    except Exception as error:  # what is wrong with a value in a config may be found anywhere
        offer = "" if Path(where).is_dir() else near(where)
        said = first_line(error)
        said = one_line(error) if said.endswith(":") else said
        raise UserError(f"No model could be opened at '{path}': {said}{offer}") from error
    if (layers := getattr(config, "num_hidden_layers", 1)) < 1:
        raise UserError(f"The config of '{path}' says num_hidden_layers {layers}; a model needs 1 or more.")
    return config


def _assembled(path: str | Path, config: Any, tensors: dict[str, Tensor]) -> PreTrainedModel:
    kind = getattr(transformers, (config.architectures or [""])[0], None)
    if kind is None:
        raise UserError(
            f"The config of '{path}' names no class of transformers as its architecture "
            f"('architectures' is {config.architectures}). Copy or prune it again."
        )
    # Weights are handed over, so that transformers does not report those of old folders as unexpected.
    model, report = kind.from_pretrained(None, config=config, state_dict=tensors, output_loading_info=True)
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{path} is incomplete: '{missing[0]}' is missing. Copy or prune it again.")
    check_weights(model, path)
    return model


def _read(file: str | Path) -> dict[str, Tensor]:
    """Copies: what lies in the file is not aligned, and BLAS then rounds otherwise than before saving; nor
    may a folder that is written again change a model in use."""
    try:
        return {name: tensor.clone() for name, tensor in load_file(file).items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({first_line(error)}). Copy or prune it again.") from error


def _own_file(where: str, **hub: Any) -> str:
    file = cached_file(where, FILE, _raise_exceptions_for_missing_entries=False, **hub)
    if file is None:
        raise UserError(
            f"{where} is incomplete: '{FILE}' is missing, which holds what the pruner learned. "
            "Copy the whole folder, or prune the model again."
        )
    return file


def _weight_files(where: str, **hub: Any) -> list[str]:
    """One safetensors file, or else the shards that the index names: transformers leaves the index of shards
    where it writes one file over them."""
    optional = {"_raise_exceptions_for_missing_entries": False}
    if (single := cached_file(where, SAFE_WEIGHTS_NAME, **hub, **optional)) is not None:
        return [single]
    index = cached_file(where, SAFE_WEIGHTS_INDEX_NAME, **hub, **optional)
    if index is None:
        why = foreign_weights(where) or f"{SAFE_WEIGHTS_NAME} is missing. Copy or prune it again."
        raise UserError(f"{where} has no safetensors weights: {why}")
    try:
        names = set(json.loads(Path(index).read_text())["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{index} is damaged ({first_line(error)}). Copy it again.") from error
    try:
        return [str(cached_file(where, name, **hub)) for name in sorted(names)]
    except OSError as error:
        raise UserError(f"{where} is incomplete: {first_line(error)}") from error
