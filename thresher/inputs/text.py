"""Texts to token ids: truncation that is counted, padding, tensors."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import datasets
from torch import Tensor

from thresher.batches import token_batches
from thresher.errors import UserError
from thresher.families.base import Family
from thresher.folders.locate import locate
from thresher.folders.tokenizer import in_words, open_tokenizer
from thresher.folders.tokenizer_steps import check_steps
from thresher.heads import head_of
from thresher.inputs.context import ContextEncoder, at_lines
from thresher.inputs.excerpt import Excerpts, longest_first
from thresher.inputs.rows import BESIDE, ROW
from thresher.inputs.words import WordEncoder

log = logging.getLogger(__name__)

LOOK = 50  # texts, for the mean length
QUERIES = 20  # with their passages, that are tokenised together
UNHEARD = "\u2603 \U000e0100\u0f3a"  # characters that few vocabularies have


def load_tokenizer(path: str | Path, family: Family | None = None) -> Any:
    """The tokenizer of a folder or hub repository, checked against its model's family, if that is given.

    Raises
    ------
    UserError
        If there is none: transformers would make up one that knows no words. If it gives ids that the model
        has no embedding for, or has no token for what it does not know or to pad with.
    """
    tokenizer = open_tokenizer(locate(path))
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(f"'{path}' has no tokenizer. Save it there too: tokenizer.save_pretrained('{path}').")
    with in_words(f"The tokenizer of '{path}' cannot be used"):
        check_steps(tokenizer, path)
    if family is not None:
        _check_unknown(tokenizer, path)
        _check_ids(tokenizer, family, path)
        with in_words(f"The tokenizer of '{path}' cannot be used"):
            _check_ends(tokenizer, family, path)
            tokenizer.pad(tokenizer(["a", "a a"], return_attention_mask=False), return_tensors="pt")
    return tokenizer


def special_ends(tokenizer: Any) -> tuple[int, int]:
    """How many tokens a tokenizer adds before a text ([CLS]) and after it ([SEP])."""
    whole = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = range(len(whole) - len(bare) + 1)
    first = next((start for start in starts if whole[start : start + len(bare)] == bare), 0)
    return first, len(whole) - len(bare) - first


def _check_unknown(tokenizer: Any, path: str | Path) -> None:
    """Refuse a tokenizer that fails on some texts, or in padding."""
    try:
        with in_words("The tokenizer fails"):
            unknown = None in tokenizer(UNHEARD)["input_ids"]
    except UserError:
        unknown = True
    if unknown:
        raise UserError(
            f"The tokenizer of '{path}' has no token for words that it does not know, and fails on them: "
            "give it one (unk_token) that is in its vocabulary."
        )
    if tokenizer.pad_token_id is None:  # whatever it is, it is packed away
        if not tokenizer.all_special_tokens:
            raise UserError(f"The tokenizer of '{path}' has no token to pad with: give it one (pad_token).")
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.all_special_tokens[0]


def _check_ids(tokenizer: Any, family: Family, path: str | Path) -> None:
    """Refuse ids beyond the rows of the model's embedding, and ask for no token types that it lacks."""
    most = 1 + max(tokenizer.get_vocab().values())
    if most > family.vocabulary:
        raise UserError(
            f"The tokenizer of '{path}' has {most} tokens, but the model's embedding has {family.vocabulary} "
            "rows: they do not belong together. Save the tokenizer that the model was trained with beside "
            "it, or call model.resize_token_embeddings(len(tokenizer)) before training."
        )
    if family.segments == 1:  # as in RoBERTa: nothing hangs on token types, but 1 would be out of range
        tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n != "token_type_ids"]


def _check_ends(tokenizer: Any, family: Family, path: str | Path) -> None:
    """Say what a tokenizer does not add around a text."""
    before, after = special_ends(tokenizer)
    first = "no [CLS] before" if head_of(family).reads == "prefix" and not before else ""
    last = "" if after else "no [SEP] after"
    if first or last:
        log.warning(
            "The tokenizer of '%s' adds %s a text.%s If the model was not trained so, save the tokenizer "
            "that it was trained with.",
            path,
            " and ".join(filter(None, (first, last))),
            " The model's head reads the first word instead." if first else "",
        )


class TextEncoder:
    """Tokenises texts or text pairs as one model wants them.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    max_length : int
        Texts of more tokens are truncated and counted.
    apart : bool
        Whether the two texts of a pair are two inputs.
    within : bool
        Whether the answer to the first text of a pair is found in the second, which then is not truncated.

    Attributes
    ----------
    truncated, seen : int
        Texts cut so far, and texts encoded so far.
    """

    def __init__(self, tokenizer: Any, max_length: int, apart: bool = False, within: bool = False):
        self.tokenizer, self.apart, self.within = tokenizer, apart, within
        self.max_length = max_length
        if max_length <= (own := tokenizer.num_special_tokens_to_add(pair=True)):
            raise UserError(
                f"`max_length` is {max_length}, which leaves no room: this tokenizer adds {own} tokens of "
                "its own."
            )
        self.excerpts = Excerpts(tokenizer, max_length)
        self.truncated = self.seen = 0
        special = [tokenizer.cls_token_id, tokenizer.bos_token_id, tokenizer.sep_token_id]
        special += [tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id]
        self.stand_in: int = next((id_ for id_ in special if id_ is not None), 0)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> dict[str, list[Any]]:
        """Token ids of each text, not padded, with what else the tokenizer gives (token types). Where the
        tokenizer adds no token of its own, an empty text has one that says nothing.

        The tokenizer sees a long text as far as the tokens that are kept can hang on it (`Excerpts`), and
        no more than `SIGHT` characters at a time: it takes 200 to 500 bytes for each.
        """
        if self.within:
            return self.encode_contexts(texts, pairs)
        if self.apart and pairs is not None:
            both = [text for pair in zip(texts, pairs, strict=True) for text in pair]
            return self.encode(both) | {"row": [i // 2 for i in range(len(both))]}
        rows = list(zip(texts)) if pairs is None else list(zip(texts, pairs, strict=True))
        columns: dict[str, list[list[int]]] = {}
        pending, size = list(range(len(rows))), self.excerpts.first
        while pending:
            further: list[int] = []
            last = size >= self.excerpts.farthest
            for group in self._groups(rows, pending, size):
                for (row, seen), found in zip(group, self._tokens([seen for _, seen in group]), strict=True):
                    if (kept := self._kept(found, rows[row], seen, last)) is None:
                        further.append(row)
                        continue
                    for name, values in kept.items():
                        columns.setdefault(name, [[]] * len(rows))[row] = values
            pending, size = further, self.excerpts.next(size)
        self.seen += len(rows)
        return columns

    def _groups(self, rows: list[tuple], chosen: list[int], size: int) -> Iterator[list[tuple[int, tuple]]]:
        """The chosen rows with their excerpts, as many as the tokenizer may see at a time."""
        group: list[tuple[int, tuple]] = []
        taken = 0
        for row in chosen:
            seen = tuple([self.excerpts.of(text, size) for text in rows[row]])
            taken += (length := sum(map(len, seen)))
            if group and taken > self.excerpts.sight:
                yield group
                group, taken = [], length
            group.append((row, seen))
        if group:
            yield group

    def _tokens(self, rows: list[tuple]) -> Iterator[tuple[dict[str, list[int]], Any]]:
        """What the tokenizer gives for each, and where in it the texts are. That of Python alone cuts texts,
        but does not tell where they are: a library that cuts pairs keeps every part with every other."""
        cut = {} if self.tokenizer.is_fast else {"truncation": True, "max_length": self.max_length}
        with in_words("The tokenizer fails on a text"):
            encoded = self.tokenizer(
                *map(list, zip(*rows, strict=True)), return_attention_mask=False, verbose=False, **cut
            )
        names = list(encoded)
        for place, values in enumerate(zip(*encoded.values(), strict=True)):
            yield dict(zip(names, values, strict=True)), encoded.encodings and encoded.encodings[place]

    def _kept(
        self, found: tuple[dict[str, list[int]], Any], texts: tuple, seen: tuple, last: bool
    ) -> dict[str, list[int]] | None:
        """A row's tokens, at most `max_length`; None where more of the texts must be seen."""
        columns, encoding = found
        size = len(columns["input_ids"])
        whole = tuple(map(len, seen)) == tuple(map(len, texts))
        if encoding is None:
            cut = size >= self.max_length or not whole
            if cut and size < self.max_length and not last:
                return None
        elif cut := not (whole and size <= self.max_length):
            parts = encoding.sequence_ids
            counts = [parts.count(part) for part in range(len(texts))]
            shares = self._shares(texts, seen, counts, self.max_length - size + sum(counts), last)
            if shares is None:
                return None
            for part in reversed(range(len(texts))):
                if over := counts[part] - shares[part]:
                    start = parts.index(part) + (0 if self.excerpts.left else shares[part])
                    columns = {name: row[:start] + row[start + over :] for name, row in columns.items()}
        self.truncated += cut
        if not columns["input_ids"]:
            return {name: [self.stand_in if name == "input_ids" else 0] for name in columns}
        return columns

    def _shares(
        self, texts: tuple, seen: tuple, counts: list[int], room: int, last: bool
    ) -> tuple[int, ...] | None:
        """How many tokens of each text are kept, if that would be so whatever follows on the excerpts."""
        shares = longest_first(counts, room)
        unseen = [len(text) - len(part) for part, text in zip(seen, texts, strict=True)]
        ends = [(count, sys.maxsize if more else count) for count, more in zip(counts, unseen, strict=True)]
        if sum(counts) > room and all(longest_first(far, room) == shares for far in product(*ends)):
            return shares
        if len(texts) == 2 and min(counts) > room // 2:  # half for each, or one more for the longer
            return longest_first([room + self.excerpts.longer(*texts), room], room)
        return shares if last else None

    def encode_columns(self, examples: datasets.Dataset, source: str = "") -> dict[str, list[Any]]:
        """As `encode`, of the columns ``text`` (and ``text_pair``), or as `encode_words`, of ``words``, or as
        `encode_candidates`, of ``passages``. The `source` of the texts is for messages."""
        if "words" in examples.column_names:
            return self.encode_words(examples["words"][:])
        if "passages" in examples.column_names:
            return self.encode_candidates(examples["text"][:], examples["passages"][:])
        pairs = examples["text_pair"][:] if "text_pair" in examples.column_names else None
        with at_lines(source, examples["line"][:] if self.within else ()):
            return self.encode(examples["text"][:], pairs)

    def encode_candidates(
        self, queries: Sequence[str], passages: Sequence[Sequence[str]]
    ) -> dict[str, list[Any]]:
        """As `encode`, of each query with each of its passages, a row each; ``row`` is the place of the
        query."""
        row = [place for place, some in enumerate(passages) for _ in some]
        pairs = [passage for some in passages for passage in some]
        return self.encode([queries[place] for place in row], pairs) | {ROW: row}

    def encode_words(self, texts: Sequence[Sequence[str]]) -> dict[str, list[Any]]:
        """As of `WordEncoder`: a long text has several windows, each a row."""
        before = self.words.cut
        columns = self.words(texts)
        self.truncated += self.words.cut - before
        self.seen += len(texts)
        return columns

    def encode_contexts(self, texts: Sequence[str], pairs: Sequence[str] | None) -> dict[str, list[Any]]:
        """As of `ContextEncoder`: a long context has several windows, each a row."""
        self.seen += len(texts)
        return self.contexts(texts, pairs)

    @cached_property
    def contexts(self) -> ContextEncoder:
        """For questions with the contexts that their answers stand in."""
        return ContextEncoder(self.tokenizer, self.max_length, self.stand_in)

    @cached_property
    def words(self) -> WordEncoder:
        """For texts that come in words."""
        return WordEncoder(self.tokenizer, self.max_length)

    def encode_examples(self, examples: datasets.Dataset, source: str = "") -> datasets.Dataset:
        """Columns ``text`` (and ``text_pair`` or ``passages``), or ``words``, become token ids; other columns
        stay out. The `source` of the texts is for messages."""
        if "words" in examples.column_names:
            before, seen = self.truncated, self.seen
            encoded = datasets.Dataset.from_dict(self.encode_words(examples["words"][:]))
            self.warn(self.truncated - before, self.seen - seen, "words")
            return encoded

        def encode(batch: dict[str, list], places: list[int]) -> dict[str, list]:
            if "passages" in batch:
                columns = self.encode_candidates(batch["text"], batch["passages"])
            else:
                with at_lines(source, batch["line"]):
                    columns = self.encode(batch["text"], batch.get("text_pair"))
            return columns | ({ROW: [places[row] for row in columns[ROW]]} if ROW in columns else {})

        before, seen = self.truncated, self.seen
        how: dict[str, Any] = {"remove_columns": examples.column_names, "load_from_cache_file": False}
        how["batch_size"] = QUERIES if "passages" in examples.column_names else 1000
        encoded = examples.map(encode, batched=True, with_indices=True, **how)
        self.warn(self.truncated - before, self.seen - seen)
        return encoded

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Encode texts that do not count as seen in the ``with`` block."""
        counts = self.truncated, self.seen
        try:
            yield
        finally:
            self.truncated, self.seen = counts

    def mean_length(self, examples: datasets.Dataset) -> float:
        """Tokens of a text, by a look at the first few, which do not count as seen."""
        with self.uncounted():
            some = self.encode_columns(examples.select(range(min(LOOK, len(examples)))))["input_ids"]
        return sum(map(len, some)) / len(some)

    def warn(self, truncated: int, seen: int, what: str = "texts") -> None:
        """Say once how many of the texts seen were cut, or words of them."""
        if truncated and what == "words":
            log.warning("%d words of %d texts have more tokens than a window: cut.", truncated, seen)
        elif truncated:
            log.warning(
                "%d of %d texts have more than %d tokens: truncated.", truncated, seen, self.max_length
            )

    def pad(self, rows: dict[str, list]) -> dict[str, Tensor]:
        """Rows of token ids to a padded batch of tensors with its attention mask."""
        return dict(self.tokenizer.pad(rows, return_tensors="pt"))

    def batches(
        self, columns: dict[str, list], **limits: int
    ) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Padded batches of near lengths with the indices of their rows; `limits` as in `token_batches`."""
        tokens = {key: values for key, values in columns.items() if key not in BESIDE}
        for group in token_batches([len(ids) for ids in columns["input_ids"]], **limits):
            yield group, self.pad({key: [values[i] for i in group] for key, values in tokens.items()})
