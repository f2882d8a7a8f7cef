"""A tokenizer from a folder that anybody may have written: no code is run, and no file elsewhere is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from thresher.errors import UserError, first_line
from thresher.folders.model_config import make_config
from thresher.folders.read import file_of, read_json, refuse_links
from thresher.folders.tokenizer_steps import check_growth, check_sentencepiece, described

FILES = re.compile(r"\w*_(file|path|dir|object)|vocab|merges")
"""Settings that name a file, or stand for one: the folder's own files are taken, whatever they say."""
REFUSED = ("init_inputs", "fast_tokenizer_files")
LARGEST = 2**21  # id of a token: lists as long are made
SPECIAL = ("extra_special_tokens", "additional_special_tokens", "model_specific_special_tokens")
MOST_SPECIAL = 10_000  # each is compared with all others
SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
BARE: dict[str, Any] = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {}, "unk_token": ""}}
"""A tokenizer's file, for the tokenizers library, with nothing in it."""


def open_tokenizer(where: str) -> Any:
    """The tokenizer of a folder or hub name.

    Parameters
    ----------
    where : str
        What `thresher.folders.locate.locate` answered.

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
    _check_growth(where)
    ignored = {name: None for name in settings if FILES.fullmatch(name)}
    try:
        with in_words(f"No tokenizer could be opened at '{where}'"):
            return AutoTokenizer.from_pretrained(where, config=config, trust_remote_code=False, **ignored)
    except UserError as error:
        _check_packages(where, error)
        raise


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
    special = [
        file.get(name) for file in (settings, _object(where, "special_tokens_map.json")) for name in SPECIAL
    ]
    if any(isinstance(tokens, list | dict) and len(tokens) > MOST_SPECIAL for tokens in special):
        raise UserError(
            f"The tokenizer of '{where}' has more than {MOST_SPECIAL:,} special tokens. Remove some."
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


def _check_growth(where: str) -> None:
    """Refuse normalizers that lengthen a text by so much that a short text fills the memory. They are looked
    at before loading, in which tokens of the folder's own are normalized."""
    bare = BARE | {"normalizer": _object(where, "tokenizer.json").get("normalizer")}
    with in_words(f"The tokenizer.json of '{where}' is damaged"):
        check_growth(described(Tokenizer.from_str(json.dumps(bare)).normalizer), where)
    for file in _pieces(where):
        check_sentencepiece(file.read_bytes(), where)


def _pieces(where: str) -> list[Path]:
    """Files of SentencePiece."""
    if (folder := Path(where)).is_dir():
        return [
            file for file in sorted(folder.glob("*")) if file.suffix in (".model", ".spm") and file.is_file()
        ]
    return [Path(file) for name in SENTENCEPIECE if (file := file_of(where, name)) is not None]


def _check_packages(where: str, error: UserError) -> None:
    """Say which packages read the only tokenizer there is; transformers asks for another package."""
    available = {"sentencepiece": is_sentencepiece_available(), "protobuf": is_protobuf_available()}
    lacking = " ".join(name for name, there in available.items() if not there)
    if lacking and file_of(where, "tokenizer.json") is None and (pieces := _pieces(where)):
        raise UserError(
            f"The tokenizer of '{where}' is a file of SentencePiece ('{pieces[0].name}'). To read it, "
            f"install what is missing: pip install {lacking}."
        ) from error
