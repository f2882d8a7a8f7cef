"""The contract of a head: one kind of output, made of the states after the last layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor

from thresher.errors import UserError
from thresher.packed import PackedBatch

if TYPE_CHECKING:
    from thresher.families import Family

Reads = Literal["prefix", "suffix", "survivors", "all"]
"""Which tokens a head reads: the first alone, the last alone, all that survive the last layer, or all. Of a
token that was dropped, it reads the state with which the token entered the layer that dropped it."""
Inputs = Mapping[str, Tensor | None]


class Head(ABC):
    """Makes the outputs of a transformers class of models, by the model's own modules.

    Parameters
    ----------
    family : Family

    Attributes
    ----------
    suffix : str, or tuple of str
        End of the names of the transformers classes that have this head.
    auto : type
        The Auto class of transformers that opens such a model.
    instead : tuple of types
        Auto classes that come before it, where they know the architecture.
    labels : tuple of str
        Names of the arguments that `loss` takes.
    reads : str
        Which tokens are read: see `Reads`.
    by_token : bool
        Whether there is an answer for each token.
    decodes : bool
        Whether a decoder makes the answer.
    protects_last : bool
        Whether the last token stays, where the settings do not say so.
    further : tuple of str
        Names of inputs besides those of the encoder.
    """

    suffix: ClassVar[str | tuple[str, ...]]
    auto: ClassVar[Any]
    instead: ClassVar[tuple[Any, ...]] = ()
    labels: ClassVar[tuple[str, ...]] = ("labels",)
    reads: Reads = "all"
    by_token: ClassVar[bool] = False
    decodes: ClassVar[bool] = False
    protects_last: ClassVar[bool] = False
    further: ClassVar[tuple[str, ...]] = ()

    def __init__(self, family: Family):
        self.family = family

    @abstractmethod
    def __call__(self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None = None) -> Any:
        """Outputs of a packed batch.

        Parameters
        ----------
        hidden : tensor [tokens, dim]
            Of the tokens that it reads or more, before the final norm.
        packed : PackedBatch
            Where these tokens lie.
        weight : float tensor [tokens], optional
            How alive each token is (soft stage, exact gate).

        Returns
        -------
        transformers.utils.ModelOutput
            With ``logits``: of every text, or of every token; or the states that a decoder reads.
        """

    def finished(self, output: Any, inputs: Inputs, **labels: Tensor) -> Any:
        """Outputs of a packed batch as the transformers model gives them for these inputs, with a loss where
        there are labels."""
        output = self.restored(output, inputs)
        return type(output)(loss=self.loss(output, **labels), **output) if labels else output

    def labelled(self, **given: Tensor | None) -> dict[str, Tensor]:
        """The labels among arguments, or none where they are not all given.

        Raises
        ------
        UserError
            For labels that are those of another head.
        """
        found = {name: values for name, values in given.items() if values is not None}
        if unknown := sorted(found.keys() - set(self.labels)):
            known = " and ".join(self.labels) or "no labels"
            raise UserError(f"This model takes {known}, not {unknown[0]}.")
        return found if len(found) == len(self.labels) else {}

    def flat(self, inputs: Inputs) -> Inputs:
        """Inputs with a row for each sequence, ``[sequences, length]``."""
        return inputs

    def restored(self, output: Any, inputs: Inputs) -> Any:
        """Outputs of a packed batch, as the transformers model gives them for these inputs."""
        return output

    def decoder_inputs(self, output: Any) -> dict[str, Any]:
        """The arguments by which a model's decoder takes the outputs of a packed batch."""
        raise NotImplementedError

    def read(self, output: Any, inputs: Inputs) -> Tensor:
        """The logits of a packed batch again, from a restored output: ``[sequences, names]``, or
        ``[tokens, names]`` where there is one answer for each token."""
        return output.logits

    @abstractmethod
    def loss(self, output: Any, **labels: Tensor) -> Tensor:
        """The loss that the transformers class gives for `labels`, of a restored output."""


def unpadded(values: Tensor, inputs: Inputs) -> Tensor:
    """Values ``[batch, length, ...]`` of real tokens alone, ``[tokens, ...]``: what `padded` was given."""
    mask = inputs.get("attention_mask")
    return values.flatten(0, 1) if mask is None else values[mask.bool()]


def padded(values: Tensor, inputs: Inputs, fill: float = 0.0) -> Tensor:
    """Values of tokens ``[tokens, ...]`` where the inputs have them, ``[batch, length, ...]``."""
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    assert ids is not None
    if mask is None:
        return values.unflatten(0, (ids.shape[0], ids.shape[1]))
    spread = values.new_full((*ids.shape, *values.shape[1:]), fill)
    spread[mask.bool()] = values
    return spread
