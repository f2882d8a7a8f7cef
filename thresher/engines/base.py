"""The contract of an engine, and the list in which engines put themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

from torch import Tensor

from thresher.engines.rows import Rows
from thresher.families import Family
from thresher.packed import PackedBatch
from thresher.pruners import Rule

Heads = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values, ``[tokens or more, heads, head_dim]`` each."""


@dataclass(frozen=True)
class Passed:
    """A packed batch after all layers.

    Attributes
    ----------
    hidden : tensor [survivors, dim], or [tokens, dim] where dropped tokens are carried
    packed : PackedBatch
        The survivors.
    starts : int32 tensor [layers, batch + 1]
        Where each sequence began after each layer's drop.
    depths : int64 tensor [tokens]
        How many layers' drops each token survived.
    """

    hidden: Tensor
    packed: PackedBatch
    starts: Tensor
    depths: Tensor


PRECISIONS = ("fp32", "bf16", "int8")
REGISTERED: dict[str, type[Engine]] = {}


class Engine(ABC):
    """Runs all that goes token by token: the embeddings, and the stages between two attentions.

    A stage is the rest of a layer after its attention, and the next layer's queries, keys and values: a map
    over ``[tokens, dim]`` with one dynamic size. Attention, dropping and the head are not an engine's.

    ``class Mine(Engine, name="mine")`` registers an engine. Its file imports slow packages where they are
    used, because all files of this folder are imported for the list of engines.

    Parameters
    ----------
    family : Family
    precision : str
        One of `PRECISIONS`. The model's own weights may be converted in place.

    Attributes
    ----------
    precisions : tuple of str
        Those in which it runs.
    rounds_rows : bool
        Whether a new number of rows costs this engine time. Rows are then computed in round numbers, and the
        hidden states, queries, keys and values that it returns may have more rows than there are tokens.
    """

    rounds_rows = True
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    family: Family
    name: ClassVar[str]

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name
            REGISTERED[name] = cls

    @abstractmethod
    def __init__(self, family: Family, precision: str): ...

    @classmethod
    def needs(cls, precision: str) -> tuple[str, ...]:
        """Packages that must be installed; the extra of ours that installs them has the engine's name."""
        return ()

    @classmethod
    def lacks(cls, precision: str) -> str | None:
        """The first package that is missing, if any."""
        return next((package for package in cls.needs(precision) if find_spec(package) is None), None)

    def calibrate(self, run: Callable[[], object]) -> None:  # noqa: B027 - most need nothing
        """Learn what inputs look like, if this engine must know; `run` passes texts through the model."""

    def embed(self, inputs: dict[str, Tensor], packed: PackedBatch) -> tuple[Tensor, Heads]:
        """Hidden states of packed inputs ``[tokens]``, and layer 0's attention inputs.

        Returns
        -------
        hidden : tensor [tokens or more, dim]
        heads : tuple of tensors
        """
        rows = Rows.of(packed, self.rounds_rows)
        filled = {name: rows.filled(values) for name, values in inputs.items()}
        return self._embed(filled, rows.filled(packed.positions))

    def stage(
        self,
        index: int,
        hidden: Tensor,
        context: Tensor,
        packed: PackedBatch,
        survivors: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> tuple[Tensor, Heads | None]:
        """The rest of layer `index`, and the next layer's queries, keys and values.

        Parameters
        ----------
        hidden : tensor [tokens at entry or more, dim]
            The layer's input.
        context : tensor [survivors, heads * head_dim]
            What its attention gave.
        packed : PackedBatch
            The survivors.
        survivors : int64 tensor [survivors], optional
            Their places among the tokens at entry. None: all of them.
        gate : float tensor [survivors], optional
            Soft stage, paper's form: what the layer's output is multiplied by.

        Returns
        -------
        hidden : tensor [survivors or more, dim]
        heads : tuple of tensors, or None
            None after the last layer.
        """
        rows = Rows.of(packed, self.rounds_rows)
        if survivors is not None:
            hidden = hidden.index_select(0, rows.filled(survivors))
        gate = None if gate is None else rows.filled(gate)
        return self._stage(
            index, rows.filled(hidden), rows.filled(context), rows.filled(packed.positions), gate
        )

    def layers(
        self, hidden: Tensor, heads: Heads, packed: PackedBatch, rule: Rule, carries: bool = False
    ) -> Passed | None:
        """All layers, where this engine runs attention and the rule by itself. None: it does not.

        Parameters
        ----------
        hidden : tensor [tokens or more, dim]
        heads : tuple of tensors
            As `embed` gives both.
        packed : PackedBatch
        rule : Rule
            Which tokens stay.
        carries : bool
            Whether a dropped token's state at the entry of the layer that dropped it is wanted too.
        """
        return None

    @abstractmethod
    def _embed(self, inputs: dict[str, Tensor], positions: Tensor) -> tuple[Tensor, Heads]:
        """As `embed`, with inputs and positions ``[rows]``."""

    @abstractmethod
    def _stage(
        self, index: int, hidden: Tensor, context: Tensor, positions: Tensor, gate: Tensor | None
    ) -> tuple[Tensor, Heads | None]:
        """As `stage`, with all tensors ``[rows, ...]`` of the survivors."""
