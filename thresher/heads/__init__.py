"""Kinds of output. One kind is one file; `HEADS` is the list that knows them all."""

from __future__ import annotations

from thresher.errors import UserError
from thresher.heads.base import Head
from thresher.heads.sequence import SequenceHead

HEADS: tuple[type[Head], ...] = (SequenceHead,)


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
    raise UserError(
        f"{name} has no sequence-classification head. Load the model with "
        "AutoModelForSequenceClassification. If its head is not trained yet, fine-tune it first: "
        "`thresher finetune`, or thresher.training.finetune."
    )


__all__ = ["HEADS", "Head", "SequenceHead", "head_for"]
