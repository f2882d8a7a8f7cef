"""Long texts: a tokenizer that sees a part of them gives the answers that it gives for the whole."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from thresher.inputs import excerpt
from thresher.inputs.excerpt import SIGHT, longest_first
from thresher.inputs.text import TextEncoder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefgh0123'é好", "ab", "aa", "aba", "abc", "bb", "'s"]
WORDS = [*SPECIAL, *LETTERS, *(f"##{letters}" for letters in LETTERS)]
PIECES = [*LETTERS, "▁", "▁a", "▁ab", "a▁", "aaa", " ", " a", "a b"]
SCORES = [(token, 0.0) for token in SPECIAL] + [(piece, -1.0 - i % 5) for i, piece in enumerate(PIECES)]
BYTES = {token: i for i, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
MERGES = [("a", "b"), ("Ġ", "a"), ("a", "a"), ("Ġa", "b"), ("aa", "aa"), ("ab", "a"), ("b", "a")]
for _left, _right in MERGES:
    BYTES.setdefault(_left + _right, len(BYTES))


def fast(model, normalizer=None, split=None, pair="[CLS] $A [SEP] $B:1 [SEP]:1", **options):
    backend = Tokenizer(model)
    if normalizer is not None:
        backend.normalizer = normalizer
    if split is not None:
        backend.pre_tokenizer = split
    special = {name: SPECIAL.index(name) for name in ("[CLS]", "[SEP]")}
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", pair, list(special.items()))
    backend.add_special_tokens([AddedToken("[MASK]", lstrip=True), *SPECIAL[:4]])
    names = ["input_ids", "token_type_ids", "attention_mask"]
    roles = {f"{token[1:-1].lower()}_token": token for token in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names, **roles, **options)


def word_piece(**options):
    model = models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    split = options.pop("split", None) or pre_tokenizers.BertPreTokenizer()
    return fast(model, normalizers.BertNormalizer(), split, **options)


def byte_level(**options):
    split = pre_tokenizers.ByteLevel(add_prefix_space=options.pop("space", False))
    return fast(models.BPE(BYTES, MERGES), normalizers.NFC(), split, **options)


def unigram(split, *steps, **options):
    chain = normalizers.Sequence([normalizers.NFKC(), *steps])
    return fast(models.Unigram(SCORES, unk_id=1), chain, split, **options)


def added(tokenizer, *tokens):
    tokenizer.add_tokens(list(tokens))
    return tokenizer


SPLIT = pre_tokenizers.Sequence
TOKENIZERS = {
    "word pieces": word_piece(),
    "word pieces, a half that is not even": word_piece(pair="[CLS] $A [SEP] $B [SEP] [SEP]"),
    "word pieces, the end": word_piece(truncation_side="left"),
    "word pieces, unsplit": word_piece(split=pre_tokenizers.Punctuation()),
    "word pieces, added": added(
        word_piece(), AddedToken("ab", single_word=True), AddedToken("bb", rstrip=True)
    ),
    "word pieces, added with a space": added(word_piece(), "b a", "a ab a"),
    "bytes": byte_level(),
    "bytes, with a space": byte_level(space=True, pair="[CLS] $A [SEP] [SEP] $B [SEP]"),
    "bytes, the end": byte_level(truncation_side="left"),
    "unigram": unigram(SPLIT([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])),
    "unigram, stripped": unigram(
        pre_tokenizers.Metaspace(prepend_scheme="first"),
        normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
        normalizers.Strip(),
    ),
    "unigram, spaces replaced": unigram(None, normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")),
    "unigram, spaces removed": unigram(pre_tokenizers.Metaspace(), normalizers.Replace(Regex(r"\s+"), "")),
    "unigram, unsplit": unigram(None),
    "unigram, in one": unigram(pre_tokenizers.Metaspace(split=False)),
}
SPLITTING = {name for name in TOKENIZERS if "unsplit" not in name and "spaces" not in name}
SPLITTING -= {"word pieces, added with a space", "unigram, in one", "word pieces, the end", "bytes, the end"}

BITS = [
    "a",
    "b",
    "ab",
    "abc",
    "a b",
    "a",
    " ",
    " ",
    "  ",
    "\n",
    "\t",
    "0",
    "12",
    "'s",
    "é",
    "e\u0301",
    "好",
    "ﷺ",
]
BITS += ["\u0301", "[SEP]", "[MASK]", " [MASK] ", "[mask]", "x", "\u2581", "\u00a0", "\u200b", "\x07", "."]
BITS += ["a" * 120, " " * 50]
REPEATED = ["a ", "ab b ", "a", " ", "abc ab ", "好", "[MASK]"]


def texts(most: int) -> st.SearchStrategy[str]:
    repeated = st.tuples(st.sampled_from(REPEATED), st.integers(0, 3 * most))
    return st.lists(st.sampled_from(BITS), max_size=most).map("".join) | repeated.map(lambda d: d[0] * d[1])


def check(name: str, rows: list, most: int, first: int) -> None:
    tokenizer = TOKENIZERS[name]
    paired = list(map(list, zip(*rows, strict=True)))
    encoder = TextEncoder(tokenizer, most)
    encoder.excerpts.first = first
    found = encoder.encode(*paired)
    expected = tokenizer(*paired, truncation=True, max_length=most, return_attention_mask=False)
    assert found == dict(expected)
    assert encoder.truncated == sum(bool(one.overflowing) for one in expected.encodings)
    assert encoder.seen == len(rows)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_answers_are_those_of_the_whole(monkeypatch, name, data):
    monkeypatch.setattr(excerpt, "_PIECE", 16)
    sides = data.draw(st.integers(1, 2))
    rows = data.draw(st.lists(st.tuples(*[texts(60 // sides**2)] * sides), min_size=1, max_size=3))
    check(
        name,
        rows,
        data.draw(st.integers(6, 30)),
        data.draw(st.integers(1, 64)) if name in SPLITTING else SIGHT,
    )


@given(st.lists(st.integers(0, 40), min_size=1, max_size=2), st.integers(4, 30))
def test_the_share_of_each(counts, most):
    rows = [tuple("a " * count for count in counts)]
    check("word pieces", rows, most, 5)
    assert sum(longest_first(counts, most)) == min(sum(counts), most)
