"""CTranslate2: its encoder in the place of the transformers model's; the head stays with PyTorch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from thresher.bench.rivals import Batch, Runner, Setup, logits_of, on
from thresher.errors import UserError

NEEDS = ("ctranslate2",)
EXTRA = "bench"
PRECISIONS = ("fp32", "bf16", "int8")
TYPES = {"fp32": "float32", "bf16": "bfloat16", "int8": "int8_float32"}  # of CTranslate2


def load(setup: Setup, precision: str) -> Runner:
    import ctranslate2

    kind = TYPES[precision]
    if kind not in ctranslate2.get_supported_compute_types("cpu"):
        raise UserError(f"CTranslate2 has no {kind} on this processor.")
    place = setup.work / f"ctranslate2-{kind}"
    if not (head := place / "head.pt").exists():
        _convert(setup.folder, place, kind)
    model = torch.load(head, weights_only=False)  # of our own making
    encoder = ctranslate2.Encoder(
        str(place), "cpu", compute_type=kind, inter_threads=1, intra_threads=setup.threads
    )
    setattr(model, model.base_model_prefix, _Encoder(encoder))
    torch.set_num_threads(setup.threads)

    @torch.inference_mode()
    def run(batch: Batch) -> Any:
        return logits_of(model(**on("cpu", batch)))

    return run


class _Encoder(nn.Module):
    """Answers as the encoder of a transformers model does."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        from ctranslate2 import DataType, StorageView

        def tensor(values: Any) -> Any:
            return None if values is None else torch.as_tensor(np.asarray(values.to(DataType.float32)))

        ids, lengths = (StorageView.from_array(x.int().numpy()) for x in (input_ids, attention_mask.sum(1)))
        kinds = None if token_type_ids is None else token_type_ids.tolist()
        found = self.encoder.forward_batch(ids, lengths, token_type_ids=kinds)
        return BaseModelOutputWithPooling(
            last_hidden_state=tensor(found.last_hidden_state), pooler_output=tensor(found.pooler_output)
        )


def _convert(folder: str, place: Path, compute_type: str) -> None:
    """Write the encoder as CTranslate2 has it, and beside it the transformers model without its encoder."""
    from ctranslate2.converters import TransformersConverter

    from thresher.store import dense_model

    model: Any = dense_model(folder)  # whose weights the conversion rounds in place

    class Converter(TransformersConverter):
        def load_model(self, model_class: type, *_: Any, **__: Any) -> Any:
            model.config.position_embedding_type = "absolute"  # asked for, though transformers has no other
            encoder: Any = model if isinstance(model, model_class) else model.base_model
            if getattr(encoder, "pooler", encoder) is None:  # asked for, though an answer by token needs none
                encoder.pooler = nn.ModuleDict({"dense": nn.Linear(*2 * [model.config.hidden_size])})
            return encoder

        def load_tokenizer(self, *_: Any, **__: Any) -> Any:  # a stand-in: texts come as ids
            words = {str(i): i for i in range(model.config.vocab_size)}
            return SimpleNamespace(get_vocab=lambda: words, unk_token="0")

    try:
        Converter(folder).convert(str(place), quantization=compute_type)
    except ValueError as error:
        if "No conversion is registered" not in str(error):
            raise
        kind = model.config.model_type
        raise UserError(f"CTranslate2 does not convert models of the type {kind}.") from error
    setattr(model, model.base_model_prefix, None)
    torch.save(model, place / "head.pt")
