"""Kinds of output. One kind is one file; `HEADS` is the list that knows them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thresher.errors import UserError
from thresher.heads.base import Head, Reads
from thresher.heads.choice import ChoiceHead
from thresher.heads.embedding import EmbeddingHead
from thresher.heads.generation import GenerationHead
from thresher.heads.sequence import SequenceHead
from thresher.heads.spans import SpanHead
from thresher.heads.tokens import TokenHead

if TYPE_CHECKING:
    from thresher.families import Family

HEADS: tuple[type[Head], ...] = (
    SequenceHead,
    TokenHead,
    SpanHead,
    ChoiceHead,
    GenerationHead,
    EmbeddingHead,  # last, because names such as MarianMTModel end like those of models without a head
)


def head_of(family: Family) -> Head:
    """The head of a family's model."""
    return head_for(type(family.model).__name__)(family)


def head_for(name: str) -> type[Head]:
    """The head of a transformers class.

    Parameters
    ----------
    name : str
        Name of the class.

    Raises
    ------
    UserError
        If its kind of output is not known.
    """
    for head in HEADS:
        if name.endswith(head.suffix):
            return head
    known = ", ".join(f"{head.auto.__name__}" for head in HEADS)
    raise UserError(
        f"{name} has no head that Thresher knows. Load the model with one of {known}. If its head is not "
        "trained yet, fine-tune it first: `thresher finetune`, or thresher.training.finetune."
    )


__all__ = [
    "HEADS",
    "ChoiceHead",
    "EmbeddingHead",
    "GenerationHead",
    "Head",
    "Reads",
    "SequenceHead",
    "SpanHead",
    "TokenHead",
    "head_for",
    "head_of",
]
