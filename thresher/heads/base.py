"""The contract of a head: one kind of output, made of the states after the last layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

from thresher.packed import PackedBatch

if TYPE_CHECKING:
    from thresher.families import Family

Reads = Literal["prefix", "survivors"]
"""Which tokens a head reads: the first alone, or all that survive the last layer."""


class Head(ABC):
    """Makes the outputs of a transformers class of models, by the model's own modules.

    Parameters
    ----------
    family : Family

    Attributes
    ----------
    suffix : str
        End of the names of the transformers classes that have this head.
    auto : type
        The Auto class of transformers that opens such a model.
    """

    suffix: ClassVar[str]
    auto: ClassVar[Any]

    def __init__(self, family: Family):
        self.family = family

    @property
    @abstractmethod
    def reads(self) -> Reads:
        """Which tokens are read."""

    @abstractmethod
    def __call__(self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None = None) -> Any:
        """Outputs of a packed batch.

        Parameters
        ----------
        hidden : tensor [survivors, dim]
            After the last layer, before the final norm.
        packed : PackedBatch
            Where the survivors lie.
        weight : float tensor [survivors], optional
            How alive each token is (soft stage, exact gate).

        Returns
        -------
        transformers.utils.ModelOutput
            With ``logits``.
        """

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss that the transformers class gives for `labels`."""
