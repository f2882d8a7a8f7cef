"""A tokenizer from a folder that anybody may have written: no code is run, and no file elsewhere is read."""

from __future__ import annotations

import re
import struct
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from thresher.errors import UserError, first_line
from thresher.folders import file_of, read_json, refuse_links
from thresher.model_config import make_config

FILES = re.compile(r"\w*_(file|path|dir|object)|vocab|merges")
"""Settings that name a file, or stand for one: the folder's own files are taken, whatever they say."""
REFUSED = ("init_inputs", "fast_tokenizer_files")
LARGEST = 2**21  # id of a token: lists as long are made
GROWTH = 100  # times that normalizers may lengthen a text


def open_tokenizer(where: str) -> Any:
    """The tokenizer of a folder or hub name.

    Parameters
    ----------
    where : str
        What `thresher.locate.locate` answered.

    Raises
    ------
    UserError
        If there is none, or its settings would read other files than the folder's, or lengthen a text
        without bound.
    """
    if (folder := Path(where)).is_dir():
        refuse_links(folder)
    config = _config(where)
    settings = _object(where, "tokenizer_config.json")
    _check_settings(where, settings, config)
    _check_growth(where, _object(where, "tokenizer.json").get("normalizer"))
    ignored = {name: None for name in settings if FILES.fullmatch(name)}
    with in_words(f"No tokenizer could be opened at '{where}'"):
        return AutoTokenizer.from_pretrained(where, config=config, trust_remote_code=False, **ignored)


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """Say in a `UserError` what of a tokenizer failed. The tokenizers library panics with what is no
    `Exception`."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{what}: {first_line(RuntimeError(error))}") from error


def _config(where: str) -> PreTrainedConfig:
    """The model's config, from which transformers chooses a class; an empty one where there is none."""
    file = file_of(where, "config.json")
    content = {} if file is None else read_json(file)
    return make_config(content, str(file)) if isinstance(content, dict) and content else PreTrainedConfig()


def _object(where: str, name: str) -> dict[str, Any]:
    """A JSON object in a file; an empty one where there is no such file."""
    if (file := file_of(where, name)) is None:
        return {}
    if not isinstance(content := read_json(file), dict):
        raise UserError(f"{file} is damaged: it is no JSON object. Save the tokenizer again.")
    return content


def _check_settings(where: str, settings: dict[str, Any], config: PreTrainedConfig) -> None:
    """Refuse settings that cannot be left aside and would read or run something else."""
    source = f"The tokenizer_config.json of '{where}'"
    named = [name for name in REFUSED if settings.get(name)] + _nested_files(settings)
    if named:
        raise UserError(
            f"{source} names other files ('{named[0]}'). Remove that, or save the tokenizer again."
        )
    for name in (settings.get("tokenizer_class"), getattr(config, "tokenizer_class", None)):
        if name is not None and not _is_tokenizer(name):
            own = " Its own code is never run." if "auto_map" in settings else ""
            raise UserError(
                f"{source} asks for a class {name!r:.100}, which is no tokenizer of transformers.{own}"
            )
    added = settings.get("added_tokens_decoder") or {}
    if not isinstance(added, dict) or any(not _is_id(key) for key in added):
        raise UserError(f"{source} has 'added_tokens_decoder' that maps no ids to tokens. Save it again.")


def _nested_files(settings: dict[str, Any]) -> list[str]:
    """Settings of settings that name a file."""
    found = []
    for value in settings.values():
        if isinstance(value, dict):
            found += [name for name in value if re.fullmatch(r"\w*_(file|path|option)", name) and value[name]]
            found += _nested_files(value)
    return found


def _is_tokenizer(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    with in_words(f"The class '{name:.100}' of a tokenizer cannot be used"):
        kinds = [tokenizer_class_from_name(spelled) for spelled in (name, name.removesuffix("Fast"))]
    return any(isinstance(kind, type) and issubclass(kind, PreTrainedTokenizerBase) for kind in kinds)


def _is_id(key: str) -> bool:
    return key.isdecimal() and len(key) < 10 and int(key) <= LARGEST


def _check_growth(where: str, normalizer: Any) -> None:
    """Refuse normalizers that lengthen a text by so much that a short text fills the memory."""
    try:
        grown = _growth(normalizer)
    except (AttributeError, TypeError, ValueError, struct.error) as error:
        raise UserError(f"The tokenizer.json of '{where}' is damaged ({first_line(error)}).") from error
    if grown > GROWTH:
        raise UserError(
            f"The tokenizer.json of '{where}' makes texts up to {grown:.3g} times as long before it parts "
            "them. Take the tokenizer that the model was trained with."
        )


def _growth(normalizer: Any) -> float:
    """How many times as long as a text, in characters, what a normalizer makes of it may be."""
    if not normalizer:
        return 1.0
    kind = normalizer.get("type")
    if kind == "Sequence":
        grown = 1.0
        for part in normalizer.get("normalizers") or ():
            grown *= _growth(part)
        return grown
    if kind == "Replace":
        pattern = (normalizer.get("pattern") or {}).get("String")
        length = len(pattern) if pattern else 0.5  # an expression may match between any two characters
        return max(1.0, len(normalizer.get("content") or "") / length)
    if kind == "Prepend":
        return 1.0 + len(normalizer.get("prepend") or "")
    if kind == "Precompiled":
        chars = b64decode(normalizer.get("precompiled_charsmap") or "")
        trie = struct.unpack_from("<I", chars)[0] if chars else 0
        return max(1.0, *map(len, chars[4 + trie :].split(b"\0")), 1.0) if chars else 1.0
    return 1.0
