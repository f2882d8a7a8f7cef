"""Weights in files that anybody may have written: headers are read first, and tensors once all fits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange, revert_weight_conversion
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

from thresher.errors import UserError, one_line
from thresher.families import family_for
from thresher.folders import pickled
from thresher.folders.read import check_weights, damaged, file_of, foreign_weights, read_json
from thresher.heads import HEADS, Head, SequenceHead, head_for

ATTENTION = "sdpa"  # a config may name an implementation on the hub, whose code would be fetched and run
EAGER = "eager"  # of architectures that have no other
FLOATS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}  # what a weight may be, and its bytes
PICKLED = ((WEIGHTS_NAME, WEIGHTS_INDEX_NAME),)
SAFE = ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME),)
RENAMED = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
AGAIN = "If it was copied, copy it again."


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, which is not read yet. `itemsize` are the bytes of a number, or 0 for integers and
    for floats of 8 bits."""

    file: str
    name: str
    shape: tuple[int, ...]
    itemsize: int


def weight_files(where: str, pickled: bool = False, **hub: Any) -> list[str]:
    """Files of a model's weights: one, or else the shards that an index names. The index is looked at second,
    because transformers leaves it where it writes one file over the shards.

    Parameters
    ----------
    where : str
        What `thresher.folders.locate.locate` answered.
    pickled : bool
        Take PyTorch's older format too, which is read without running what it asks for.
    **hub
        Options of `thresher.folders.locate.ASKING`.

    Raises
    ------
    UserError
        If there are none, or the index is damaged or names a file elsewhere.
    """
    for single, index in SAFE + PICKLED if pickled else SAFE:
        if (file := file_of(where, single, **hub)) is not None:
            return [file]
        if (file := file_of(where, index, **hub)) is not None:
            return [_shard(where, name, file, **hub) for name in _named(file, Path(single).suffix)]
    why = foreign_weights(where) or f"{SAFE_WEIGHTS_NAME} is missing. {AGAIN}"
    raise UserError(f"No weights could be loaded from '{where}', it has no safetensors weights: {why}")


def _named(index: str, suffix: str) -> list[str]:
    """Names of the shards in an index, which are files beside the index."""
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{index} is damaged: it has no 'weight_map' of names of files. {AGAIN}")
    for name in shards.values():
        if not isinstance(name, str) or not re.fullmatch(rf"[\w.-]+{re.escape(suffix)}", name):
            raise UserError(
                f"{index} is damaged: it names {name!r:.100} as a file of weights. Weights must lie beside "
                f"the index, in files such as 'model-00001-of-00002{suffix}'. {AGAIN}"
            )
    return sorted(set(shards.values()))


def _shard(where: str, name: str, index: str, **hub: Any) -> str:
    if (file := file_of(where, name, **hub)) is None:
        raise UserError(
            f"{where} is incomplete: '{name}' is missing, which {Path(index).name} names. {AGAIN}"
        )
    return file


def look(files: list[str]) -> dict[str, Stored]:
    """What tensors lie in some files, by name.

    Raises
    ------
    UserError
        If a file is damaged, or two hold a tensor of the same name.
    """
    found: dict[str, Stored] = {}
    for file in files:
        for tensor in _headers(file):
            if tensor.name in found:
                other = found[tensor.name].file
                raise UserError(f"{file} is damaged: it holds '{tensor.name:.100}', as does {other}. {AGAIN}")
            found[tensor.name] = tensor
    return found


def fetch(stored: Mapping[str, Stored]) -> dict[str, Tensor]:
    """Read tensors, as copies: what lies in a file is not aligned, and BLAS then rounds otherwise than before
    saving; nor may a folder that is written again change a model in use."""
    found: dict[str, Tensor] = {}
    for file in sorted({tensor.file for tensor in stored.values()}):
        wanted = {name: tensor.name for name, tensor in stored.items() if tensor.file == file}
        try:
            found |= _pickled(file, wanted) if _is_pickled(file) else _safe(file, wanted)
        except Exception as error:
            raise damaged(file, error, AGAIN) from error
    return found


def _is_pickled(file: str) -> bool:
    return file.endswith(Path(WEIGHTS_NAME).suffix)


def _headers(file: str) -> list[Stored]:
    try:
        if _is_pickled(file):
            return [
                Stored(file, name, tuple(tensor.shape), _itemsize(tensor.dtype))
                for name, tensor in pickled.load(file, "meta").items()
                if isinstance(tensor, Tensor)
            ]
        with safe_open(file, "pt") as stored:
            slices = [(name, stored.get_slice(name)) for name in stored.keys()]  # noqa: SIM118 - no mapping
            return [
                Stored(file, name, tuple(s.get_shape()), FLOATS.get(s.get_dtype(), 0)) for name, s in slices
            ]
    except Exception as error:  # of PyTorch's unpickler, anything
        raise damaged(file, error, AGAIN) from error


def _itemsize(dtype: torch.dtype) -> int:
    return dtype.itemsize if dtype.is_floating_point and dtype.itemsize > 1 else 0


def _safe(file: str, wanted: dict[str, str]) -> dict[str, Tensor]:
    with safe_open(file, "pt") as stored:
        return {name: stored.get_tensor(inside).clone() for name, inside in wanted.items()}


def _pickled(file: str, wanted: dict[str, str]) -> dict[str, Tensor]:
    tensors = pickled.load(file, "cpu")
    return {name: tensors[inside].clone() for name, inside in wanted.items()}


def class_of(config: Any, head: type[Head] | None = None) -> type[PreTrainedModel]:
    """The class of transformers that a config's family runs.

    Parameters
    ----------
    config : PreTrainedConfig
    head : type of Head, optional
        Default: that of the class in `architectures`, or else one for sequences.

    Raises
    ------
    UserError
        If no family claims the config, or transformers has no such class.
    """
    family_for(config)
    head, kind = head or head_named(config), CONFIG_MAPPING[config.model_type]
    for auto in (*head.instead, head.auto):
        if kind in auto._model_mapping:
            found: Any = auto._model_mapping[kind]
            return found
    raise UserError(
        f"There is no {config.model_type} that {head.auto.__name__} opens: transformers has no such head."
    )


def class_saved(model: PreTrainedModel) -> str:
    """Name of the class that opens a model again: elsewhere, nobody knows a user's own."""
    return class_of(model.config, head_for(type(model).__name__)).__name__


def head_named(config: Any) -> type[Head]:
    """The head of the class in a config's `architectures`; one for sequences where that is not known."""
    for name in getattr(config, "architectures", None) or ():
        for head in HEADS:
            if name.endswith(head.suffix):
                return head
    return SequenceHead


def build(
    path: str | Path,
    config: Any,
    stored: Mapping[str, Stored],
    new_head: bool = False,
    head: type[Head] | None = None,
    **options: Any,
) -> tuple[PreTrainedModel, list[str]]:
    """A model with the weights in files, and the names of weights that it should have but does not.

    Parameters
    ----------
    path : str or Path
        What the user named, for messages.
    config : PreTrainedConfig
    stored : mapping of str to Stored
        What lies in the files. What the model does not know is left there.
    new_head : bool
        Draw a head of another shape anew, in place of refusing the shape.
    head : type of Head, optional
        As of `class_of`.
    **options
        Keyword arguments of transformers' ``from_pretrained``.

    Raises
    ------
    UserError
        If the config and the files do not agree, before anything of the config's size is made; or if a weight
        is no finite number.
    """
    kind: Any = class_of(config, head)
    try:
        with torch.device("meta"):
            namings = _namings(kind(config))
    except Exception as error:  # what is wrong with a value in a config may be found anywhere
        raise UserError(
            f"No model could be built from the config of '{path}': {one_line(error):.300}"
        ) from error
    found = [
        sum(any(a in stored for a in _aliases(name, start)) for name in names) for start, names in namings
    ]
    prefix, wanted = namings[found.index(max(found))]
    unsaved = set(kind._keys_to_ignore_on_save or ()) - set(stored)  # as Marian's sines
    wanted = {name: shape for name, shape in wanted.items() if name not in unsaved}
    chosen = _fitting(path, wanted, stored, prefix, new_head)
    # Weights are handed over, so that transformers neither looks for files nor reports those of old folders.
    model, report = kind.from_pretrained(
        None,
        config=config,
        state_dict=fetch(chosen),
        attn_implementation=ATTENTION if kind._supports_sdpa else EAGER,
        ignore_mismatched_sizes=new_head,
        output_loading_info=True,
        **options,
    )
    check_weights(model, path)
    return model, sorted(report["missing_keys"])


def _namings(model: PreTrainedModel) -> list[tuple[str, dict[str, tuple[int, ...]]]]:
    """Shapes of a model's weights, by the names that the model has for them, and then by those in the files
    of architectures that transformers has taken over, which may hold several in one; each with what the
    names of the encoder's weights start with, where there is a head."""
    saved, own = model.state_dict().keys(), model.base_model_prefix
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    ways: list[tuple[str, dict[str, Tensor]]] = [(own, dict(model.named_parameters()) | buffers)]
    converted = get_model_conversion_mapping(model, add_legacy=False)
    if any(not isinstance(change, PrefixChange) for change in converted):
        ways.append((own, revert_weight_conversion(model, ways[0][1])))
    starts = [x.prefix_to_remove for x in converted if isinstance(x, PrefixChange) and x.prefix_to_remove]
    names, bare = ways[-1][1], not any(name.startswith(f"{own}.") for name in saved)
    for start in starts:
        inner = [name for name in names if bare or name.startswith(f"{own}.")]
        other = {name: f"{start}.{name.removeprefix(f'{own}.')}" for name in inner}
        ways.append((start, {other.get(name, name): x for name, x in names.items()}))
    return [(start, {name: tuple(x.shape) for name, x in names.items()}) for start, names in ways]


def _fitting(
    path: str | Path,
    wanted: dict[str, tuple[int, ...]],
    stored: Mapping[str, Stored],
    prefix: str,
    new_head: bool,
) -> dict[str, Stored]:
    """The tensors that a model of these shapes takes, by their names in the files."""
    chosen, absent = {}, {}
    for name, shape in wanted.items():
        found = next((alias for alias in _aliases(name, prefix) if alias in stored), None)
        if found is None:
            absent[name] = shape
            continue
        tensor = chosen[found] = stored[found]
        if not tensor.itemsize:
            raise UserError(
                f"'{path}' holds weights of integers ('{found}'): they were quantised, and cannot be pruned. "
                "Give the model as it was before."
            )
        if tensor.shape != shape and not (new_head and not name.startswith(f"{prefix}.")):
            raise UserError(
                f"'{path}' holds weights that have other shapes than the config says: '{found}' has "
                f"{list(tensor.shape)} in place of {list(shape)}. {AGAIN}"
            )
    if _numbers(absent.values()) > _numbers(tensor.shape for tensor in chosen.values()):
        raise UserError(
            f"'{path}' is incomplete: '{next(iter(absent))}' is missing, and most of the weights that its "
            f"config counts. {AGAIN}"
        )
    check_bytes(chosen)
    return chosen


def check_bytes(chosen: Mapping[str, Stored]) -> None:
    """Refuse tensors that are larger than their file: one number stands for many, or many share a place.

    Raises
    ------
    UserError
        With the file's name.
    """
    for file in {tensor.file for tensor in chosen.values()}:
        inside = (tensor for tensor in chosen.values() if tensor.file == file)
        taken = sum(_numbers([tensor.shape]) * tensor.itemsize for tensor in inside)
        try:
            size = os.stat(file).st_size
        except OSError as error:
            raise damaged(file, error, AGAIN) from error
        if taken > size:
            raise UserError(
                f"{file} is damaged: its weights would take {taken:,} bytes, but the file has {size:,}. Save "
                "the model again, each weight with numbers of its own."
            )


def _aliases(name: str, prefix: str) -> Iterator[str]:
    """Names under which transformers finds a weight: files of a bare encoder lack the prefix, and old files
    call the weights of norms otherwise."""
    for spelled in (name, name.removeprefix(f"{prefix}.")):
        yield spelled
        for new, old in RENAMED:
            if spelled.endswith(new):
                yield spelled.removesuffix(new) + old


def _numbers(shapes: Any) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)
