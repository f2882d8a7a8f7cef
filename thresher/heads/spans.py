"""Where in a sequence an answer lies: extractive question answering."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForQuestionAnswering
from transformers.loss.loss_utils import ForQuestionAnsweringLoss
from transformers.modeling_outputs import QuestionAnsweringModelOutput, TokenClassifierOutput

from thresher.heads.base import Head, Inputs, padded, unpadded
from thresher.packed import PackedBatch


class SpanHead(Head):
    """Reads every token. At padding, logits are the least that there are, so that no answer lies there."""

    suffix = "ForQuestionAnswering"
    auto = AutoModelForQuestionAnswering
    by_token = True
    labels = ("start_positions", "end_positions")

    def __call__(
        self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None = None
    ) -> TokenClassifierOutput:
        return TokenClassifierOutput(logits=self.family.mark(self.family.norm(hidden)))

    def restored(self, output: Any, inputs: Inputs) -> Any:
        logits = output.logits
        start, end = padded(logits, inputs, torch.finfo(logits.dtype).min).unbind(-1)
        return QuestionAnsweringModelOutput(start_logits=start.contiguous(), end_logits=end.contiguous())

    def read(self, output: Any, inputs: Inputs) -> Tensor:
        return unpadded(torch.stack([output.start_logits, output.end_logits], -1), inputs)

    def loss(self, output: Any, **labels: Tensor) -> Tensor:
        return ForQuestionAnsweringLoss(output.start_logits, output.end_logits, **labels)
