"""What is wrong with a folder that no model can be read from, and what its owner can do."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from torch import nn
from transformers.utils import cached_file

from thresher.errors import UserError, first_line, one_line
from thresher.folders.locate import near

ADAPTER = "adapter_config.json"
LARGEST = 2**26  # bytes of a JSON file with a vocabulary: the largest take a third of that
LARGE = 2**22  # bytes of another JSON file: 65,536 names of classes take about so many
VALUES = 2**18  # in another JSON file: as many names of classes, twice
VOCABULARIES = ("tokenizer.json", "vocab.json")
TOKENIZERS = re.compile(
    r"(tokenizer|special_tokens|added_tokens|vocab|merges|chat_template|tekken|config|processor_config).*"
    r"|.*\.(model|spm|tokenizer|codes|jinja)|(dict|\w+_vocab)\.\w+|(emoji|normalizer|byte_maps|word_\w+)\.json"
)
"""Names of files that transformers opens for some tokenizer."""
WEIGHTS = re.compile(r".*\.(safetensors|bin)(\.index\.json)?|generation_config\.json")
TRIES = 5  # to read a folder that others replace
FOREIGN = {".gguf": "llama.cpp (GGUF)", ".onnx": "ONNX Runtime", ".tflite": "TensorFlow Lite"}
FOREIGN |= {".h5": "TensorFlow", ".msgpack": "Flax", ".xml": "OpenVINO", ".mlmodel": "Core ML"}

Given = ParamSpec("Given")
Read = TypeVar("Read")


def one_save(read: Callable[Given, Read]) -> Callable[Given, Read]:
    """Have a function that reads a folder read again where the folder was replaced meanwhile, so that it
    never mixes the files of two saves. It takes the folder first; what is no folder is read once.

    Raises
    ------
    UserError
        If the folder was replaced each time.
    """

    @wraps(read)
    def reading(*args: Given.args, **options: Given.kwargs) -> Read:
        path = signature(read).bind(*args, **options).args[0]
        folder = os.path.join(os.path.expanduser(path), str(options.get("subfolder") or ""))
        for _ in range(TRIES):
            before = _identity(folder)
            try:
                found = read(*args, **options)
            except Exception:
                if _identity(folder) == before:
                    raise
                continue
            if _identity(folder) == before:
                return found
        raise UserError(
            f"'{os.fspath(path)}' is being written: its files changed while they were read, "
            f"{TRIES} times. Wait until the folder is whole."
        )

    return reading


def _identity(folder: str) -> list[Any]:
    """Which files of a model lie in a folder: another list once one was replaced or written. Other files, as
    reports, do not count."""
    try:
        names = sorted(n for n in os.listdir(folder) if TOKENIZERS.fullmatch(n) or WEIGHTS.fullmatch(n))
        return [_stamp(folder)[:2], *((name, _stamp(os.path.join(folder, name))) for name in names)]
    except OSError:
        return []


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:  # removed, or a link to nowhere
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def refuse_adapter(path: str, **hub: Any) -> None:
    """Refuse a folder or hub repository that holds an adapter (LoRA). Without peft, transformers would leave
    out the adapter and say nothing.

    Raises
    ------
    UserError
        With the line that merges it.
    """
    if file_of(path, ADAPTER, **hub) is None:
        return
    merged = f"{Path(path).name}-merged"
    raise UserError(
        f"'{path}' holds an adapter (LoRA), not a whole model: merge the adapter first, with peft installed: "
        f"AutoPeftModelForSequenceClassification.from_pretrained('{path}', num_labels=N).merge_and_unload()"
        f".save_pretrained('{merged}'), save the tokenizer there too, and give '{merged}'."
    )


def config_file(path: str, **hub: Any) -> tuple[str, dict[str, Any]]:
    """The config.json of a folder or hub repository, and what it says. Refused where it does not say which
    model it is of.

    Raises
    ------
    UserError
        With what lies there instead, and what to do.
    """
    file = file_of(path, "config.json", **hub)
    if file is None:
        raise UserError(f"'{path}' holds no config.json{_instead(Path(path))}")
    content = read_json(file)
    if not isinstance(content, dict) or "model_type" not in content:
        raise UserError(
            f"{file} has no 'model_type', so it is not the config of a transformers model. "
            "Give a folder that model.save_pretrained wrote."
        )
    check_quantised(path, content)
    return file, content


def check_quantised(path: str, content: dict[str, Any]) -> None:
    """Refuse a model whose weights were quantised."""
    if settings := content.get("quantization_config"):
        method = settings.get("quant_method", "some method") if isinstance(settings, dict) else "some method"
        raise UserError(
            f"'{path}' holds weights quantised by {method}, which cannot be pruned: give the model as it was "
            "before, or save what model.dequantize() returns. Thresher quantises later: precision='int8'."
        )


def foreign_weights(path: str) -> str:
    """The library whose weights lie in a folder that has none for PyTorch; empty if there is none."""
    files = sorted([*Path(path).glob("*"), *Path(path).glob("onnx/*")]) if Path(path).is_dir() else []
    found = next((file for file in files if file.suffix in FOREIGN), None)
    return (
        "" if found is None else f"{found.name} is for {FOREIGN[found.suffix]}; PyTorch's weights are needed."
    )


def _instead(folder: Path) -> str:
    """What lies in a folder without a config, as the rest of a sentence, and what to do."""
    if not folder.is_dir():
        return ", so it is no transformers model."
    try:
        names = {entry.name for entry in folder.iterdir()}
        (folder / "config.json").exists()
    except OSError as error:
        raise _refused(folder, error) from error
    inner = sorted(entry.parent.name for entry in folder.glob("*/config.json"))
    checkpoints = [name for name in names if name.startswith("checkpoint-")]
    if checkpoints:
        newest = max(checkpoints, key=lambda name: (len(name), name))
        return f": it is the output folder of a training run. Give a checkpoint, such as '{folder / newest}'."
    if inner:
        kind, whole = "", ""
        if "modules.json" in names:
            kind = " (a sentence-transformers folder)"
            whole = f" Or have its pooling too: SentenceTransformer('{folder}').save_pretrained(other)."
        return f"{kind}. Its model lies deeper: give '{folder / inner[0]}'.{whole}"
    if foreign := foreign_weights(str(folder)):
        return f": {foreign}"
    if any(name.startswith(("tokenizer", "vocab.")) for name in names):
        return ": it holds a tokenizer alone. Save the model there too: model.save_pretrained(folder)."
    if not names:
        return ": it is empty."
    return ". Give a folder that model.save_pretrained wrote."


def file_of(path: str, name: str, **hub: Any) -> str | None:
    """A file of a folder or hub repository, or None where there is none.

    Raises
    ------
    UserError
        If it is no file, or a link that leads out of the folder, or the hub does not give it.
    """
    try:
        file = cached_file(path, name, _raise_exceptions_for_missing_entries=False, **hub)
    except OSError as error:  # of the hub
        offer = "" if Path(path).is_dir() else near(path)
        raise UserError(f"No model could be opened at '{path}': {first_line(error)}{offer}") from error
    if file is not None:
        refuse_link(Path(file))
    elif os.path.lexists(here := Path(path, hub.get("subfolder") or "", name)):
        raise UserError(f"'{here}' is a folder, a pipe or a broken link. Put a file there.")
    return file


def refuse_links(folder: Path) -> None:
    """Refuse a folder with a file of a tokenizer that is a link and leads out of the folder. Other files are
    looked at when they are opened (`file_of`), and links to texts stay.

    Raises
    ------
    UserError
        With the link's name.
    """
    for file in [*folder.glob("*"), *folder.glob("additional_chat_templates/*")]:
        if TOKENIZERS.fullmatch(file.name) and file.is_file():
            refuse_link(file, folder)


def refuse_link(file: Path, folder: Path | None = None) -> None:
    """Refuse a link that leads out of a folder, by default the file's own. The hub's cache may link its own
    blobs.

    Raises
    ------
    UserError
        With the link's name.
    """
    real, folder = Path(os.path.realpath(file)), Path(os.path.realpath(folder or file.parent))
    cache = next((above for above in (folder, *folder.parents) if above.name.startswith("models--")), None)
    allowed = [folder] if cache is None else [folder, cache / "blobs"]
    if not any(real.is_relative_to(place) for place in allowed):
        raise UserError(
            f"'{file}' is a link that leads out of its folder, to '{real}'. If you trust the link, put the "
            "file itself there."
        )


def read_json(file: str | Path) -> Any:
    """What a JSON file holds.

    Raises
    ------
    UserError
        If it is no JSON, or too large to be what it should be.
    """
    try:
        large = Path(file).name in VOCABULARIES
        if (size := os.stat(file).st_size) > (LARGEST if large else LARGE):
            raise UserError(f"{file} is too large ({size:,} bytes). Remove what no model needs.")
        text = Path(file).read_text(encoding="utf-8")
        if not large and sum(map(text.count, ",[{")) > VALUES:
            raise UserError(f"{file} holds more than {VALUES:,} values. Remove what no model needs.")
        return json.loads(text)
    except UserError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise damaged(file, error, "Copy the folder again.", "damaged: it is no JSON") from error


def damaged(file: str | Path, error: Exception, advice: str, what: str = "damaged") -> UserError:
    """What to raise for a file that could not be read: whether the system refuses it, or what is in it is
    wrong. Not every library says which, so the file is opened once more."""
    try:
        open(file, "rb").close()
    except OSError as refused:
        return _refused(file, refused)
    return UserError(f"{file} is {what} ({first_line(error).rstrip('.!')}). {advice}")


def _refused(path: str | Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be read ({one_line(error)}). See that it is there, and that you may read it."
    )


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the folder in an error that does not."""
    try:
        yield
    except UserError as error:
        if os.fspath(path) in str(error):
            raise
        raise UserError(f"'{os.fspath(path)}': {error}") from error


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
    """Name of the first parameter or buffer that is not all finite numbers."""
    held = chain(model.named_parameters(), model.named_buffers())
    named = ((name, weight) for name, weight in held if weight.is_floating_point())
    bad = (name for name, weight in named if not weight.is_meta and not weight.isfinite().all())
    return next((name.removeprefix("model.") for name in bad), None)
