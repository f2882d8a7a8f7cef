"""The contract of attention: what is asked, and an answer that is computed as far as it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from thresher.attention.bias import Bias
from thresher.packed import PackedBatch


@dataclass(frozen=True)
class Asked:
    """What attention is computed of.

    Attributes
    ----------
    query, key, value : tensors [tokens, heads, head_dim]
        Keys and values may have fewer heads, each for as many neighbouring heads of queries.
    packed : PackedBatch
    scale : float
        Factor on the scores, usually ``head_dim ** -0.5``. Above 0.
    window : int, optional
        Attend only within this difference of original positions.
    log_weight : float tensor [tokens], optional
        Log of how alive each token is (soft stage, exact gate). It is added to the scores of that token as a
        key, and its exponential weighs the token's vote in the importance.
    dropout : float
        On the probabilities, after importance is taken.
    bias : Bias, optional
        What relative positions add to the scores.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    packed: PackedBatch
    scale: float
    window: int | None = None
    log_weight: Tensor | None = None
    dropout: float = 0.0
    bias: Bias | None = None

    @property
    def groups(self) -> int:
        """Heads of queries for each head of keys and values."""
        return self.query.shape[1] // max(1, self.key.shape[1])

    def ungrouped(self) -> Asked:
        """The same, with as many heads of keys and values as of queries."""
        if self.groups == 1:
            return self
        key, value = (x.repeat_interleave(self.groups, 1) for x in (self.key, self.value))
        return replace(self, key=key, value=value)


class Attended(ABC):
    """Attention over a packed batch. Nothing is computed before it is asked for.

    Ask for the importance first where it is wanted at all: most routes make importance and context in one
    pass. A route is a subclass in a file of its own, which says by `serves` what it can take.

    Parameters
    ----------
    asked : Asked

    Attributes
    ----------
    grouped : bool
        Whether it takes fewer heads of keys and values than of queries; else `asked` has none such.
    """

    grouped: ClassVar[bool] = False

    def __init__(self, asked: Asked):
        self.asked = asked if self.grouped else asked.ungrouped()
        self._importance: Tensor | None = None
        self._context: Tensor | None = None  # of all tokens, once there is one

    @classmethod
    @abstractmethod
    def serves(cls, asked: Asked) -> bool:
        """Whether this route can take such a batch, and is worth taking."""

    def importance(self) -> Tensor:
        """Attention that each token receives.

        Returns
        -------
        float32 tensor [tokens] (float64 for float64 input)
            In fair shares: mean 1 over every sequence.
        """
        if self._importance is None:
            self._importance = self._receive()
        return self._importance

    def context(self, survivors: Tensor | None = None) -> Tensor:
        """Context rows.

        Parameters
        ----------
        survivors : int64 tensor [survivors], optional
            Whose rows are wanted, in order. Default: those of all tokens.

        Returns
        -------
        tensor [survivors, heads * head_dim]
        """
        if self._context is None:
            self._context = self._rows()
        return self._context if survivors is None else self._context.index_select(0, survivors)

    @abstractmethod
    def _receive(self) -> Tensor:
        """Compute the importance, and note what of it makes the context cheaper."""

    @abstractmethod
    def _rows(self) -> Tensor:
        """Compute the context rows of all tokens, where `_receive` has not."""
