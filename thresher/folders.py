"""What is wrong with a folder that no model can be read from, and what its owner can do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers.utils import cached_file

from thresher.errors import UserError

ADAPTER = "adapter_config.json"
FOREIGN = {".gguf": "llama.cpp (GGUF)", ".onnx": "ONNX Runtime", ".tflite": "TensorFlow Lite"}
FOREIGN |= {".h5": "TensorFlow", ".msgpack": "Flax", ".xml": "OpenVINO", ".mlmodel": "Core ML"}


def refuse_adapter(path: str, **hub: Any) -> None:
    """Refuse a folder or hub repository that holds an adapter (LoRA). Without peft, transformers would leave
    out the adapter and say nothing.

    Raises
    ------
    UserError
        With the line that merges it.
    """
    if _file(path, ADAPTER, **hub) is None:
        return
    merged = f"{Path(path).name}-merged"
    raise UserError(
        f"'{path}' holds an adapter (LoRA), not a whole model: merge the adapter first, with peft installed: "
        f"AutoPeftModelForSequenceClassification.from_pretrained('{path}', num_labels=N).merge_and_unload()"
        f".save_pretrained('{merged}'), save the tokenizer there too, and give '{merged}'."
    )


def check_config(path: str, **hub: Any) -> None:
    """Refuse a folder or hub repository without a config that says which model it is.

    Raises
    ------
    UserError
        With what lies there instead, and what to do.
    """
    file = _file(path, "config.json", **hub)
    if file is None:
        raise UserError(f"'{path}' holds no config.json{_instead(Path(path))}")
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is damaged: it is no JSON ({error}). Copy the folder again.") from error
    if not isinstance(content, dict) or "model_type" not in content:
        raise UserError(
            f"{file} has no 'model_type', so it is not the config of a transformers model. "
            "Give a folder that model.save_pretrained wrote."
        )
    check_quantised(path, content)


def check_quantised(path: str, content: dict[str, Any]) -> None:
    """Refuse a model whose weights were quantised."""
    if settings := content.get("quantization_config"):
        method = settings.get("quant_method", "some method") if isinstance(settings, dict) else "some method"
        raise UserError(
            f"'{path}' holds weights quantised by {method}, which cannot be pruned: give the model as it was "
            "before, or save what model.dequantize() returns. Thresher quantises later: precision='int8'."
        )


def foreign_weights(path: str) -> str:
    """Whose weights lie in a folder that has none for PyTorch; empty if nobody's."""
    files = sorted([*Path(path).glob("*"), *Path(path).glob("onnx/*")]) if Path(path).is_dir() else []
    found = next((file for file in files if file.suffix in FOREIGN), None)
    return (
        "" if found is None else f"{found.name} is for {FOREIGN[found.suffix]}; PyTorch's weights are needed."
    )


def _instead(folder: Path) -> str:
    """What lies in a folder without a config, as the rest of a sentence, and what to do."""
    if not folder.is_dir():
        return ", so it is no transformers model."
    names = {entry.name for entry in folder.iterdir()}
    inner = sorted(entry.parent.name for entry in folder.glob("*/config.json"))
    checkpoints = [name for name in names if name.startswith("checkpoint-")]
    if checkpoints:
        newest = max(checkpoints, key=lambda name: (len(name), name))
        return f": it is the output folder of a training run. Give a checkpoint, such as '{folder / newest}'."
    if inner:
        kind = " (a sentence-transformers folder)" if "modules.json" in names else ""
        return f"{kind}. Its model lies deeper: give '{folder / inner[0]}'."
    if foreign := foreign_weights(str(folder)):
        return f": {foreign}"
    if any(name.startswith(("tokenizer", "vocab.")) for name in names):
        return ": it holds a tokenizer alone. Save the model there too: model.save_pretrained(folder)."
    if not names:
        return ": it is empty."
    return ". Give a folder that model.save_pretrained wrote."


def _file(path: str, name: str, **hub: Any) -> str | None:
    """A file of a folder or hub repository, or None where there is none."""
    return cached_file(path, name, _raise_exceptions_for_missing_entries=False, **hub)


def check_weights(model: nn.Module, path: str | Path) -> None:
    """Refuse a model with a weight that is no finite number, before hours are spent on it.

    Raises
    ------
    UserError
        With the weight's name.
    """
    if (bad := first_bad_weight(model)) is not None:
        raise UserError(
            f"'{path}' is damaged: its weight '{bad}' holds NaN or infinity, so what the model answers means "
            "nothing. Copy it again, or take an earlier checkpoint."
        )


def first_bad_weight(model: nn.Module) -> str | None:
    """Name of the first parameter that is not all finite numbers."""
    named = ((name, weight) for name, weight in model.named_parameters() if weight.is_floating_point())
    bad = (name for name, weight in named if not weight.is_meta and not weight.isfinite().all())
    return next((name.removeprefix("model.") for name in bad), None)
