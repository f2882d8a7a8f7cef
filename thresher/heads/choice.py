"""One of several sequences: a score for each, and the largest is the answer."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForMultipleChoice
from transformers.modeling_outputs import MultipleChoiceModelOutput

from thresher.heads.base import Inputs
from thresher.heads.sequence import SequenceHead
from thresher.packed import PackedBatch


class ChoiceHead(SequenceHead):
    """Reads what the head for sequences reads, of every choice; each is a sequence of its own."""

    suffix = "ForMultipleChoice"
    auto: ClassVar[Any] = AutoModelForMultipleChoice

    def __call__(self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None = None) -> Any:
        return MultipleChoiceModelOutput(logits=self._logits(hidden, packed, weight))

    def flat(self, inputs: Inputs) -> Inputs:
        return {name: None if x is None else x.flatten(0, -2) for name, x in inputs.items()}

    def restored(self, output: Any, inputs: Inputs) -> Any:
        ids = inputs["input_ids"]
        assert ids is not None
        return MultipleChoiceModelOutput(logits=output.logits.view(-1, ids.shape[-2]))

    def loss(self, output: Any, **labels: Tensor) -> Tensor:
        return F.cross_entropy(output.logits, labels["labels"])
