"""Text of a text: translations and summaries, by the model's own decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from thresher.errors import UserError
from thresher.heads.base import Head, Inputs
from thresher.packed import PackedBatch


@dataclass
class Encoded(ModelOutput):
    """What a decoder reads.

    Attributes
    ----------
    logits : tensor [texts, most survivors, dim]
        States of the survivors, padded on the right.
    attention_mask : tensor
        ``[texts, most survivors]``: 1 at survivors, 0 at padding. In the soft stage
        ``[texts, 1, 1, most survivors]``: what is added to the decoder's scores, the log of how alive each
        token is.
    """

    logits: Any = None
    attention_mask: Any = None


class GenerationHead(Head):
    """Reads the survivors, which are all that the decoder ever attends to. The last token is a survivor,
    because decoders look to the end of a text (EOS) when they end their own."""

    suffix = ("ForConditionalGeneration", "MTModel")
    auto = AutoModelForSeq2SeqLM
    reads = "survivors"
    decodes = True
    protects_last = True
    further = ("decoder_input_ids", "decoder_attention_mask")

    def __call__(self, hidden: Tensor, packed: PackedBatch, weight: Tensor | None = None) -> Encoded:
        states, real = packed.to_padded(self.family.norm(hidden))
        if weight is None:
            return Encoded(logits=states, attention_mask=real.long())
        limits = torch.finfo(states.dtype)
        added, _ = packed.to_padded(weight.clamp(min=limits.tiny).log().to(states.dtype), limits.min)
        return Encoded(logits=states, attention_mask=added[:, None, None])

    def finished(self, output: Any, inputs: Inputs, **labels: Tensor) -> Any:
        if not labels and inputs.get("decoder_input_ids") is None:
            raise UserError(
                "This model answers by a decoder: pass labels or decoder_input_ids as well, or call "
                "model.generate(input_ids, attention_mask)."
            )
        given = {name: inputs.get(name) for name in self.further} | labels
        return self.family.model(**self.decoder_inputs(output), use_cache=False, return_dict=True, **given)

    def decoder_inputs(self, output: Any) -> dict[str, Any]:
        states = BaseModelOutput(last_hidden_state=output.logits)
        return {"encoder_outputs": states, "attention_mask": output.attention_mask}

    def loss(self, output: Any, **labels: Tensor) -> Tensor:
        return output.loss
