"""The contract of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

Heads = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values, ``[tokens, heads, head_dim]`` each."""

PRECISIONS = ("fp32", "bf16", "int8")


class Engine(ABC):
    """Runs all that goes token by token: the embeddings, and the stages between two attentions.

    A stage is the rest of a layer after its attention, and the next layer's queries, keys and values:
    a map over ``[tokens, dim]`` with one dynamic size. Attention, dropping and the head are not an engine's.
    The last tokens may be repeats that make a round number (`PackedBatch.room`).

    Attributes
    ----------
    round_rows : bool
        True if a new number of rows costs this engine time.
    """

    round_rows = True

    def calibrate(self, run: Callable[[], object]) -> None:  # noqa: B027 - most need nothing
        """Learn what inputs look like, if this engine must know; `run` passes texts through the model."""

    @abstractmethod
    def embed(self, input_ids: Tensor, token_types: Tensor, positions: Tensor) -> tuple[Tensor, Heads]:
        """Hidden states ``[tokens, dim]`` of packed ids ``[tokens]``, and layer 0's attention inputs."""

    @abstractmethod
    def stage(
        self, index: int, hidden: Tensor, context: Tensor, positions: Tensor, gate: Tensor | None = None
    ) -> tuple[Tensor, Heads | None]:
        """The rest of layer `index`, and the next layer's queries, keys and values.

        Parameters
        ----------
        hidden, context : tensors [survivors, dim], [survivors, heads * head_dim]
            The layer's input, and what its attention gave.
        positions : int64 tensor [survivors]
        gate : float tensor [survivors], optional
            Soft stage, paper's form: what the layer's output is multiplied by.

        Returns
        -------
        hidden : tensor [survivors, dim]
        heads : tuple of tensors, or None
            None behind the last layer.
        """
