"""Tokenizers that lengthen texts: honest ones load, and those that would fill the memory do not."""

from __future__ import annotations

import json
import struct
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from thresher import UserError
from thresher.folders.tokenizer_steps import GROWTH, check_growth, described, growth
from thresher.inputs.excerpt import SIGHT
from thresher.inputs.text import TextEncoder, load_tokenizer

from .mutations import charsmap

convert_slow_tokenizer = import_module(
    "transformers.convert_slow_tokenizer"
)  # there is a function of that name
N = normalizers
FORMS = charsmap("q", "صلى الله عليه وسلم")  # the longest of NFKC, as in the maps of XLM-R and T5
SPACES = N.Replace(Regex(" {2,}"), " ")
HONEST = {
    "XLM-R": [N.Precompiled(FORMS)],
    "T5": [N.Precompiled(FORMS), SPACES],
    "Llama": [N.Prepend("▁"), N.Replace(" ", "▁")],
    "CamemBERT of old": [N.Precompiled(FORMS), N.Prepend("▁"), N.Replace(" ", "▁"), SPACES],
    "two expressions": [N.Precompiled(FORMS), N.Replace(Regex("[\\n\\t]"), " "), N.Replace(Regex("x+"), " ")],
    "Albert": [N.Replace("``", '"'), N.NFKD(), N.StripAccents(), N.Lowercase(), N.Precompiled(FORMS), SPACES],
    "BERT": [N.BertNormalizer()],
    "bytes": [N.NFC(), N.ByteLevel()],
    "removal": [N.NFKC(), *[N.Replace(Regex(f"[{letter}]*"), "") for letter in "abcdefgh"]],
}
HOSTILE = {
    "a long text": [N.Replace("a", "a" * 1000)],
    "at every place": [N.Replace(Regex(""), "a" * 1000)],
    "many short ones": [N.Replace("a", "aa")] * 10,
    "a long map": [N.Precompiled(charsmap("a", "a" * 1000))],
    "maps of maps": [N.Precompiled(charsmap("a", "a" * 50))] * 2,
    "letters of compatibility": [N.Replace("ل", "ﷺ"), N.NFKC()] * 6,
    "bytes of bytes": [N.ByteLevel()] * 12,
    "a long start": [N.Prepend("a" * 1000)],
}


def steps(chain: list[N.Normalizer]) -> list[dict]:
    return described(N.Sequence(chain))


@pytest.mark.parametrize("name", HONEST)
def test_honest_normalizers_are_within_bounds(name):
    check_growth(steps(HONEST[name]), "folder")


@pytest.mark.parametrize("name", HOSTILE)
def test_normalizers_that_lengthen_without_bound_are_refused(name):
    with pytest.raises(UserError, match=r"The tokenizer of 'folder' makes texts up to .* times as long"):
        check_growth(steps(HOSTILE[name]), "folder")


@pytest.mark.parametrize("name", HONEST | HOSTILE)
def test_no_text_grows_by_more_than_is_said(name):
    chain = (HONEST | HOSTILE)[name]
    most = growth(steps(chain))
    for text in ("a", "q", "ل", "ﷺ", "好", "İ", "  ", "``", "aq" * 3, "é好"):
        if len(text) * most < 1e6:
            assert len(N.Sequence(chain).normalize_str(text)) <= most * len(text)


def test_a_tokenizer_that_lengthens_a_lot_sees_less_at_a_time(monkeypatch):
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1}, unk_token="[UNK]"))
    backend.normalizer = N.Replace("a", "b" * (GROWTH - 1))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    encoder = TextEncoder(tokenizer, 8)
    seen = []
    monkeypatch.setattr(
        encoder, "_tokens", lambda rows, tokens=encoder._tokens: seen.append(rows) or tokens(rows)
    )
    columns = encoder.encode(["a" * 100_000, *["a a"] * 10, "a " * 50_000])
    assert [len(row) for row in columns["input_ids"]] == [1, *[2] * 10, 8]
    shown = [sum(len(text) for row in rows for text in row) for rows in seen]
    assert max(shown) * GROWTH < 100 * SIGHT
    assert all(one <= 4 * other + SIGHT for other, one in pairwise(shown))


# Files of SentencePiece ------------------------------------------------------------------------------


def message(*fields: tuple[int, bytes | int]) -> bytes:
    """Fields in protobuf's encoding."""

    def number(value: int) -> bytes:
        return (
            b""
            if value < 0
            else bytes([value])
            if value < 128
            else bytes([value & 127 | 128]) + number(value >> 7)
        )

    return b"".join(
        number(field << 3) + number(value)
        if isinstance(value, int)
        else number(field << 3 | 2) + number(len(value)) + value
        for field, value in fields
    )


def sentencepiece(map_: bytes = FORMS, word: str = "a") -> bytes:
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("▁", 1), ("a", 1), ("b", 1), (word * 2, 1)]
    score = struct.pack("<Bf", 2 << 3 | 5, -1.0)
    found = [(1, message((1, text.encode())) + score + message((3, kind))) for text, kind in pieces]
    return message(*found, (2, message((3, 1), (40, 0))), (3, message((1, b"nmt_nfkc"), (2, map_))))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XLMRobertaTokenizer"}))
    (tmp_path / "sentencepiece.bpe.model").write_bytes(sentencepiece())
    return tmp_path


def test_files_of_sentencepiece_are_read(folder, monkeypatch):
    pytest.importorskip("google.protobuf")
    monkeypatch.setattr(convert_slow_tokenizer, "requires_backends", lambda *_: None)
    assert load_tokenizer(folder)("aq")["input_ids"]


@pytest.mark.parametrize(
    "file", [sentencepiece(charsmap("a", "a" * 1000)), sentencepiece(word="a" * 20_000)], ids=["map", "token"]
)
@pytest.mark.parametrize(
    "before", [b"", b"\x9b\x06\x9c\x06", message((99, b"x"))], ids=["", "group", "unknown"]
)
def test_files_of_sentencepiece_without_bounds_are_refused_before_loading(folder, file, before, monkeypatch):
    monkeypatch.setattr("thresher.folders.tokenizer.AutoTokenizer", None)
    (folder / "sentencepiece.bpe.model").write_bytes(before + file)
    with pytest.raises(UserError, match=r"makes texts up to 1e\+03 times|a token of 40,\d+ bytes"):
        load_tokenizer(folder)


def test_a_map_from_anywhere_is_refused_after_loading(folder, monkeypatch):
    """What is built counts, wherever it comes from."""
    pytest.importorskip("google.protobuf")
    monkeypatch.setattr(convert_slow_tokenizer, "requires_backends", lambda *_: None)
    monkeypatch.setattr("thresher.folders.tokenizer.check_sentencepiece", lambda *_: None)
    (folder / "sentencepiece.bpe.model").write_bytes(sentencepiece(charsmap("a", "a" * 1000)))
    with pytest.raises(UserError, match=r"makes texts up to 1e\+03 times"):
        load_tokenizer(folder)


def test_the_package_that_is_missing_is_named(folder, monkeypatch):
    monkeypatch.setattr("thresher.folders.tokenizer.is_sentencepiece_available", lambda: False)

    def refuse(*_):
        raise ImportError("sentencepiece is missing")

    monkeypatch.setattr(convert_slow_tokenizer, "requires_backends", refuse)
    with pytest.raises(
        UserError, match=r"SentencePiece .*'sentencepiece\.bpe\.model'.*pip install sentencepiece"
    ):
        load_tokenizer(folder)


@pytest.mark.parametrize("damaged", [b"", b"\xff" * 50, sentencepiece()[:-9]])
def test_damaged_files_of_sentencepiece_are_refused_in_words(folder, damaged):
    (folder / "sentencepiece.bpe.model").write_bytes(damaged)
    with pytest.raises(UserError):
        load_tokenizer(folder)
