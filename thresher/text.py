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

log = logging.getLogger(__name__)

LOOK = 50  # texts, for the mean length


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer of a folder or hub repository.

    Raises
    ------
    UserError
        If there is none: transformers would make up one that knows no words.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"No tokenizer could be opened at '{path}': {first_line(error)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(f"'{path}' has no tokenizer. Save it there too: tokenizer.save_pretrained('{path}').")
    return tokenizer


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

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> dict[str, list[list[int]]]:
        """Token ids of each text, not padded, with what else the tokenizer gives (token types)."""
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
        return dict(encoded)

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
