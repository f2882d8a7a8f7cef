"""Tokenizers: checked against the model that they are for, and texts without a word."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests import toy
from tests.tiny import FAMILIES
from thresher import PruningConfig, UserError, prune
from thresher.families import family_of
from thresher.inputs.text import TextEncoder, load_tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"]


def made(words: list[str] = WORDS, around: str = "[CLS] $A [SEP]", types: bool = False, **special: str):
    """A tokenizer of a few words; `special` leaves out or renames special tokens."""
    unknown = special.get("unk_token")
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single=around,
        pair=f"{around} $B{':1' if types else ''}",
        special_tokens=[(word, words.index(word)) for word in ("[CLS]", "[SEP]") if word in around],
    )
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names, **special)


SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


@pytest.fixture(scope="module")
def bert():
    return FAMILIES["bert"](dtype=torch.float32)


def opened(tokenizer, folder, model):
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder, family_of(model))


def test_ids_beyond_the_embedding_are_refused_with_both_numbers(tmp_path, bert):
    words = [*WORDS, *(f"word{i}" for i in range(200))]
    with pytest.raises(UserError, match=r"has 206 tokens, but the model's embedding has 120 rows"):
        opened(made(words, **SPECIAL), tmp_path, bert)


def test_an_added_token_counts(tmp_path, bert):
    tokenizer = made([*WORDS, *(f"word{i}" for i in range(114))], **SPECIAL)
    assert opened(tokenizer, tmp_path, bert)
    tokenizer.add_tokens(["new"])
    with pytest.raises(UserError, match=r"121 tokens.*120 rows"):
        opened(tokenizer, tmp_path, bert)


def test_segments_that_the_model_does_not_know_are_left_out(tmp_path):
    """Of a BERT tokenizer beside a RoBERTa model: stock transformers fails on the second text of a pair."""
    roberta = FAMILIES["roberta"](dtype=torch.float32)
    encoder = TextEncoder(opened(made(types=True, **SPECIAL), tmp_path, roberta), 16)
    model = prune(roberta, PruningConfig("none", prefix_only_at_end=True))
    for pairs in (None, ["bad"]):
        columns = encoder.encode(["good bad"], pairs)
        assert "token_type_ids" not in columns
        for _, batch in encoder.batches(columns):
            assert model(**batch).logits.isfinite().all()


@pytest.mark.parametrize(
    ("around", "said"),
    [
        (
            "$A",
            "adds no [CLS] before and no [SEP] after a text. The model's head reads the first word instead.",
        ),
        ("$A [SEP]", "adds no [CLS] before a text. The model's head reads the first word instead."),
        ("[CLS] $A", "adds no [SEP] after a text. If the model"),
        ("[CLS] $A [SEP]", None),
    ],
)
def test_what_is_not_added_around_a_text_is_said(tmp_path, bert, caplog, around, said):
    opened(made(around=around, **SPECIAL), tmp_path, bert)
    assert said in caplog.text if said else not caplog.text


def test_a_head_that_pools_needs_no_first_token(tmp_path, caplog):
    opened(made(around="$A [SEP]", **SPECIAL), tmp_path, FAMILIES["modernbert-mean"](dtype=torch.float32))
    assert not caplog.text


def test_a_tokenizer_that_fails_on_unknown_words_is_refused(tmp_path, bert):
    known = {name: token for name, token in SPECIAL.items() if name != "unk_token"}
    with pytest.raises(UserError, match=r"no token for words that it does not know.*unk_token"):
        opened(made(**known), tmp_path, bert)


def test_nothing_to_pad_with(tmp_path, bert):
    """What pads is packed away, so any token will do."""
    known = {name: token for name, token in SPECIAL.items() if name != "pad_token"}
    encoder = TextEncoder(opened(made(**known), tmp_path, bert), 16)
    _, batch = next(encoder.batches(encoder.encode(["good", "good bad good"])))
    assert batch["attention_mask"].sum(1).tolist() == [5, 3]


@pytest.mark.parametrize("around", ["$A", "[CLS] $A", "[CLS] $A [SEP]"])
@pytest.mark.parametrize("pairs", [False, True])
def test_an_empty_text_is_an_answer(bert, around, pairs):
    encoder = TextEncoder(made(around=around, types=True, **SPECIAL), 16)
    texts = ["", "good", "", " \n"]
    columns = encoder.encode(texts, texts if pairs else None)
    assert all(columns["input_ids"])
    model = prune(bert, PruningConfig("none", prefix_only_at_end=True))
    for _, batch in encoder.batches(columns):
        assert model(**batch).logits.isfinite().all()


def test_a_tokenizer_file_that_is_broken(tmp_path):
    toy.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(UserError, match="No tokenizer could be opened"):
        load_tokenizer(tmp_path)


def word_pieces(prefix="##", longest=100, normalizer=None, split=None, around="[CLS] $A [SEP]", pair=None):
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.model.continuing_subword_prefix, backend.model.max_input_chars_per_word = prefix, longest
    backend.normalizer, backend.pre_tokenizer = normalizer, split or pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing(around, pair or f"{around} $B", ends)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


@pytest.mark.parametrize(
    ("tokenizer", "said"),
    [
        (word_pieces(longest=10**9), r"1,000,000,000 characters of a word \(max_input_chars_per_word\)"),
        (word_pieces(prefix="#" * 10**6), "1,000,000 characters of a prefix or suffix"),
        (word_pieces(around="[CLS] $A" + " [SEP]" * 1000), "1,001 tokens of its own around a pair"),
        (word_pieces(pair="$A $B $B $B"), "3 times a text"),
        (word_pieces(normalizer=normalizers.Sequence([normalizers.NFC()] * 65)), "66 steps|67 steps"),
        (
            word_pieces(split=pre_tokenizers.Split(Regex("(a+)+b"), "isolated")),
            "1 repetitions of repetitions in a regular expression",
        ),
        (made([*WORDS, "a" * 10_000], **SPECIAL), "10,000 characters of a token"),
    ],
)
def test_a_tokenizer_that_would_not_end_is_refused(tmp_path, bert, tokenizer, said):
    with pytest.raises(UserError, match=said):
        opened(tokenizer, tmp_path, bert)


def test_whatever_a_tokenizer_raises_on_a_text_is_said_in_words(monkeypatch):
    class PanicException(BaseException):
        pass

    encoder = TextEncoder(made(**SPECIAL), 16)
    for error in (KeyError("a"), PanicException("a")):

        def fails(*_, error=error, **__):
            raise error

        monkeypatch.setattr(type(encoder.tokenizer), "_encode_plus", fails)
        with pytest.raises(UserError, match="The tokenizer fails on a text"):
            encoder.encode(["good"])
