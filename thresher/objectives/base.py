"""The contract of an objective: one term of a training loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from thresher.trace import Trace

Need = Literal["labels", "base outputs", "base states"]
"""What an objective may ask for besides the model's own outputs: encoded labels, what the base model answers,
and the hidden states of the base model."""


@dataclass(frozen=True)
class Batch:
    """What is known of a training batch, besides the inputs.

    Attributes
    ----------
    labels : tensor, or None
        As the task encodes them.
    base : float tensor [batch, names], or None
        Outputs of the base model.
    base_states : tuple of tensors [tokens, dim], or None
        Hidden states of the base model, of the embeddings and after each layer, packed, of all tokens.
    weights : float64 tensor [batch]
        How much each text's FLOPs count.
    counts : int64 tensor [rows or texts], or None
        How many answers each row has, where a row may have any number; or each text, where the task compares
        its rows.
    """

    labels: Tensor | None
    base: Tensor | None
    base_states: tuple[Tensor, ...] | None
    weights: Tensor
    counts: Tensor | None = None


class Progress(Protocol):
    """How far the training is, and what it has been told of the batch."""

    stage: str  # "soft" or "hard"

    def penalty(self, trace: Trace, weights: Tensor) -> Tensor | float:
        """What missing the FLOPs budget costs."""


class Objective(ABC):
    """One term of the loss, weighted.

    Attributes
    ----------
    needs : frozenset of str
        What must be there; the trainer computes nothing that no objective needs.
    stages : frozenset of str
        The stages of training in which it counts.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    stages: ClassVar[frozenset[str]] = frozenset({"soft", "hard"})

    @abstractmethod
    def __call__(self, batch: Batch, output: Any, trace: Trace, progress: Progress) -> Tensor | float:
        """The term for a batch.

        Parameters
        ----------
        batch : Batch
        output : transformers.utils.ModelOutput
            With float32 ``logits``, and ``hidden_states`` where "base states" are needed.
        trace : Trace
        progress : Progress

        Returns
        -------
        scalar tensor, or 0.0
        """
