"""Texts to token ids: truncation that is counted, padding, tensors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
from torch import Tensor
from transformers import AutoTokenizer

from thresher.batches import token_batches
from thresher.errors import UserError, first_line
from thresher.families.base import Family
from thresher.locate import locate

log = logging.getLogger(__name__)

LOOK = 50  # texts, for the mean length
UNHEARD = "\u2603 \U000e0100\u0f3a"  # characters that few vocabularies have


def load_tokenizer(path: str | Path, family: Family | None = None) -> Any:
    """The tokenizer of a folder or hub repository, checked against its model's family, if that is given.

    Raises
    ------
    UserError
        If there is none: transformers would make up one that knows no words. If it gives ids that the model
        has no embedding for, or has no token for what it does not know or to pad with.
    """
    where = locate(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
    except Exception as error:  # of many kinds, of two libraries
        raise UserError(f"No tokenizer could be opened at '{path}': {first_line(error)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(f"'{path}' has no tokenizer. Save it there too: tokenizer.save_pretrained('{path}').")
    if family is not None:
        _check_unknown(tokenizer, path)
        _check_ids(tokenizer, family, path)
        _check_ends(tokenizer, family, path)
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
        unknown = None in tokenizer(UNHEARD)["input_ids"]
    except Exception:  # of the tokenizers library, which has no class for it
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
    first = "no [CLS] before" if family.pools_prefix and not before else ""
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

    Attributes
    ----------
    truncated, seen : int
        Texts cut so far, and texts encoded so far.
    """

    def __init__(self, tokenizer: Any, max_length: int):
        self.tokenizer = tokenizer
        self.max_length = max_length
        if max_length <= (own := tokenizer.num_special_tokens_to_add(pair=True)):
            raise UserError(
                f"--max-length {max_length} leaves no room: this tokenizer adds {own} tokens of its own."
            )
        self.truncated = self.seen = 0
        special = [tokenizer.cls_token_id, tokenizer.bos_token_id, tokenizer.sep_token_id]
        special += [tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id]
        self.stand_in: int = next((id_ for id_ in special if id_ is not None), 0)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> dict[str, list[list[int]]]:
        """Token ids of each text, not padded, with what else the tokenizer gives (token types). Where the
        tokenizer adds no token of its own, an empty text has one that says nothing."""
        encoded = self.tokenizer(
            list(texts),
            None if pairs is None else list(pairs),
            truncation=True,
            max_length=self.max_length,
            return_attention_mask=False,
        )
        if encoded.is_fast:
            cut = sum(bool(e.overflowing) for e in encoded.encodings)
        else:
            cut = sum(len(ids) >= self.max_length for ids in encoded["input_ids"])
        self.truncated += cut
        self.seen += len(texts)
        columns = dict(encoded)
        for row, ids in enumerate(columns["input_ids"]):
            if not ids:
                for name, values in columns.items():
                    values[row] = [self.stand_in if name == "input_ids" else 0]
        return columns

    def encode_columns(self, examples: datasets.Dataset) -> dict[str, list[list[int]]]:
        """As `encode`, of the columns ``text`` (and ``text_pair``)."""
        pairs = examples["text_pair"][:] if "text_pair" in examples.column_names else None
        return self.encode(examples["text"][:], pairs)

    def encode_examples(self, examples: datasets.Dataset) -> datasets.Dataset:
        """Columns ``text`` (and ``text_pair``) become token ids; other columns stay out."""

        def encode(batch: dict[str, list]) -> dict[str, list]:
            return self.encode(batch["text"], batch.get("text_pair"))

        before, seen = self.truncated, self.seen
        columns = examples.column_names
        encoded = examples.map(encode, batched=True, remove_columns=columns, load_from_cache_file=False)
        self.warn(self.truncated - before, self.seen - seen)
        return encoded

    def mean_length(self, examples: datasets.Dataset) -> float:
        """Tokens of a text, by a look at the first few, which do not count as seen."""
        seen = self.truncated, self.seen
        some = self.encode_columns(examples.select(range(min(LOOK, len(examples)))))["input_ids"]
        self.truncated, self.seen = seen
        return sum(map(len, some)) / len(some)

    def warn(self, truncated: int, seen: int) -> None:
        """Say once how many of the texts seen were cut."""
        if truncated:
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
        for group in token_batches([len(ids) for ids in columns["input_ids"]], **limits):
            yield group, self.pad({key: [values[i] for i in group] for key, values in columns.items()})
