"""The folder of a pruned model: a transformers folder with a block in config.json, and a small file."""

from __future__ import annotations

import copy
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from thresher.carried import Translator, make_translator
from thresher.config import VERSION, PruningConfig
from thresher.engines import to_bfloat16
from thresher.errors import UserError
from thresher.families import family_for
from thresher.files.atomic import match_access
from thresher.files.swap import replacing_folder
from thresher.folders import trained as state
from thresher.folders.generation import GENERATION, generation_config
from thresher.folders.locate import locate
from thresher.folders.model_config import make_config
from thresher.folders.read import config_file, file_of, one_save, refuse_adapter
from thresher.folders.sentence import MODULES, attach, embeds, write_layout
from thresher.folders.weights import (
    Stored,
    build,
    class_of,
    class_saved,
    fetch,
    head_named,
    look,
    weight_files,
)
from thresher.heads import EmbeddingHead, Head, head_for
from thresher.heads.pooling import layout_of
from thresher.pruners import Pruner, make_pruner

BLOCK = "token_pruning"
FILE = f"{BLOCK}.safetensors"  # the pruner's tensors; stock transformers does not look for it
WEIGHTS = re.compile(rf"model[-\d]*(-of-\d+)?\.safetensors(\.index\.json)?|{re.escape(FILE)}")
"""Files that hold a model's weights, none of which may outlive the model."""
CODE = "modeling_thresher.py"
CODE_TEXT = '''"""By this file Auto classes and sentence-transformers open the folder pruned, if they are told
trust_remote_code=True. Thresher wrote the file, and never runs it itself."""

from thresher.auto import PrunedModel

__all__ = ["PrunedModel"]
'''


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
    path, head = Path(path).expanduser(), head_for(type(model).__name__)

    def keep(name: str) -> bool:
        return not WEIGHTS.fullmatch(name) and (name != MODULES or head is EmbeddingHead)

    with replacing_folder(path, keep=keep) as folder:
        model.save_pretrained(folder, **options)
        config = copy.deepcopy(model.config)  # the model may be in use, and saved elsewhere at the same time
        config.architectures = [class_saved(model)]
        config.auto_map = {auto.__name__: f"{Path(CODE).stem}.PrunedModel" for auto in _autos(head)}
        setattr(config, BLOCK, block)
        config.save_pretrained(folder)
        (folder / CODE).write_text(CODE_TEXT)
        if (layout := layout_of(model)) is not None:
            write_layout(layout, folder)
        save_file(tensors, folder / FILE, metadata={"format": "pt"})
        with suppress(FileNotFoundError):
            match_access(folder / "config.json", path / "config.json")
        for file in folder.glob("*.safetensors"):  # safetensors lets nobody else read them, umask or not
            match_access(file, folder / "config.json")


def _autos(head: type[Head]) -> tuple[Any, ...]:
    """The Auto classes that open a model with this head."""
    return (*head.instead, head.auto)


@one_save
def load(path: str | Path, **hub: Any) -> tuple[PreTrainedModel, dict[str, Tensor], dict[str, Any]]:
    """Read the dense model, the pruner's tensors and the block.

    Parameters
    ----------
    path : str or Path
        A folder or hub name; or a folder or checkpoint that transformers' Trainer saved.
    **hub
        Options of `thresher.folders.locate.ASKING`.

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
            "Prune it first: `thresher prune`, or thresher.training.prune."
        )
    delattr(config, BLOCK)
    decodes = head_named(config).decodes
    given = block.pop(GENERATION, None) if decodes and isinstance(block, dict) else None
    pruning, sizes = PruningConfig.from_dict(block), family_for(config).sizes(config)
    pruner, translator = make_pruner(pruning, *sizes), make_translator(pruning, *sizes)
    if config.architectures != [known := class_of(config).__name__]:
        raise UserError(
            f"The config of '{path}' names no class of transformers that runs it as its architecture "
            f"('architectures' is {config.architectures!r:.100}, not ['{known}']). Copy or prune it again."
        )
    stored, own = _stored(where, block["version"], **hub)
    tensors = fetch(own)
    check_state(path, tensors, pruner, translator)
    settings = generation_config(where, config, given, **hub) if decodes else None
    model, missing = build(path, config, stored, generation_config=settings)
    if missing:
        raise UserError(f"{path} is incomplete: '{missing[0]}' is missing. Copy or prune it again.")
    attach(model, where, **hub)
    return model, tensors, block


def load_learned(pruner: Pruner, translator: Translator | None, tensors: dict[str, Tensor]) -> None:
    """Load what a folder holds besides the transformers model."""
    for part, some in zip((pruner, translator), _by_part(tensors), strict=True):
        if part is not None:
            part.load_state_dict(some)


def _by_part(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The pruner's tensors, and the translator's."""
    start = state.TRANSLATOR
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(start)}
    return own, {name.removeprefix(start): tensors[name] for name in tensors if name not in own}


def check_state(
    path: str | Path, found: dict[str, Tensor], pruner: Pruner, translator: Translator | None = None
) -> None:
    """Refuse the tensors of a pruner, and of a translator, that are not all there, of another shape, or no
    numbers that can be used.

    Raises
    ------
    UserError
        With the tensor's name.
    """
    again, wanted = "Copy or prune it again.", dict(pruner.state_dict())
    if translator is not None:
        wanted |= translator.state_dict(prefix=state.TRANSLATOR)
    if missing := sorted(set(wanted) - set(found)):
        raise UserError(f"{path} is incomplete: '{BLOCK}.{missing[0]}' is missing. {again}")
    if unknown := sorted(set(found) - set(wanted)):
        raise UserError(f"{path} holds a '{BLOCK}.{unknown[0]}' that its pruner does not know. {again}")
    for name, tensor in found.items():
        what = f"{path} is damaged: '{BLOCK}.{name}'"
        if tensor.shape != wanted[name].shape:
            shapes = f"{list(tensor.shape)} in place of {list(wanted[name].shape)}"
            raise UserError(f"{what} has the shape {shapes}. {again}")
        if not tensor.is_floating_point() or tensor.itemsize < 2:
            raise UserError(f"{what} holds {tensor.dtype}, in which no pruner is saved. {again}")
        if not tensor.isfinite().all():  # a threshold that is NaN drops every token, and says nothing
            raise UserError(f"{what} holds NaN or infinity. {again}")
    load_learned(pruner, translator, found)
    for rung in range(max(1, len(pruner.budgets))):
        if (dials := pruner.dials(rung)) is not None and (dials < 0).any():
            raise UserError(
                f"{path} is damaged: its pruner has a threshold below 0, where 0 prunes nothing. {again}"
            )


def load_config(path: str | Path, **hub: Any) -> Any:
    """The transformers config of a folder or hub name. Nothing in the folder is run for it.

    Raises
    ------
    UserError
        If there is none, no family knows its architecture, a value in it is out of range, or what lies there
        is no whole model of full precision: an adapter, a quantised model, a file for another library.
    """
    where = locate(path, **hub)
    if (trained := state.trained_weights(where, hub.get("subfolder"))) is not None:
        config, block = state.description(trained)
        setattr(config, BLOCK, block)
        return config
    refuse_adapter(where, **hub)
    file, content = config_file(where, **hub)
    config = make_config(content, file)
    if not hasattr(config, BLOCK) and embeds(where, **hub):  # its architecture may be what it was trained as
        config.architectures = [class_of(config, EmbeddingHead).__name__]
    return config


def _stored(where: str, version: int, **hub: Any) -> tuple[dict[str, Stored], dict[str, Stored]]:
    """What the files hold of the transformers model, and of the pruner."""
    if (trained := state.trained_weights(where, hub.get("subfolder"))) is not None:
        return state.parts(look([str(trained)]))
    tensors = look(weight_files(where, **hub))
    if version < VERSION:  # the pruner's tensors lie among the model's
        start = f"{BLOCK}."
        own = {name: tensors.pop(name) for name in list(tensors) if name.startswith(start)}
        return tensors, {name.removeprefix(start): tensor for name, tensor in own.items()}
    if (file := file_of(where, FILE, **hub)) is None:
        raise UserError(
            f"{where} is incomplete: '{FILE}' is missing, which holds what the pruner learned. "
            "Copy the whole folder, or prune the model again."
        )
    return tensors, look([file])


def dense_model(folder: str, precision: str = "fp32") -> nn.Module:
    """The plain transformers model of a pruned model's folder, in fp32 or bf16."""
    model: nn.Module = load(folder)[0].eval().float()
    if precision == "bf16":
        to_bfloat16(model)
    return model
