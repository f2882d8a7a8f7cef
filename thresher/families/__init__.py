"""Architectures. One architecture is one file; `FAMILIES` is the list that knows them all."""

from __future__ import annotations

from typing import Any

from torch import nn

from thresher.errors import UserError
from thresher.families.albert import Albert
from thresher.families.bart import Bart
from thresher.families.base import Family
from thresher.families.bert import Bert
from thresher.families.deberta_v2 import DebertaV2
from thresher.families.distilbert import DistilBert
from thresher.families.eurobert import EuroBert
from thresher.families.gemma3_text import Gemma3Text
from thresher.families.linear import GeluLinear, is_heard, is_plain
from thresher.families.modernbert import ModernBert
from thresher.families.mpnet import MPNet
from thresher.families.nomic_bert import NomicBert
from thresher.families.prelayernorm import PreLayerNorm
from thresher.families.shape import LayerShape
from thresher.families.stage import StageModules
from thresher.families.t5 import T5
from thresher.heads import head_for

FAMILIES: tuple[type[Family], ...] = (
    Bert,
    DistilBert,
    Albert,
    MPNet,
    DebertaV2,
    ModernBert,
    NomicBert,
    EuroBert,
    PreLayerNorm,
    T5,
    Bart,
    Gemma3Text,
)


def family_of(model: nn.Module) -> Family:
    """Find the family that knows a transformers model; a PEFT wrapper is looked through.

    Raises
    ------
    UserError
        For an architecture that no family claims, a decoder, a model without a head that is known, or with
        options that its family does not know.
    """
    inner: Any = model
    if getattr(getattr(inner, "active_peft_config", None), "is_prompt_learning", False):
        raise UserError("Tokens that an adapter learned, by prompt or prefix tuning, are not run; use LoRA.")
    if hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    family = family_for(getattr(inner, "config", None) or type(inner).__name__)
    head_for(type(inner).__name__)  # families look for its modules
    return family(inner)


def family_for(config: Any) -> type[Family]:
    """The family that claims a transformers config, before any weights are loaded.

    Raises
    ------
    UserError
        For an architecture that no family claims, or a decoder.
    """
    model_type = getattr(config, "model_type", config)
    if any(getattr(config, mark, False) for mark in ("is_decoder", "is_causal", "add_cross_attention")):
        raise UserError(f"This {model_type} is configured as a decoder; only encoders can be pruned.")
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    supported = ", ".join(name for family in FAMILIES for name in family.model_types)
    raise UserError(f"Architecture '{model_type}' is not supported. Supported encoders: {supported}.")


__all__ = [
    "FAMILIES",
    "Family",
    "GeluLinear",
    "LayerShape",
    "StageModules",
    "family_for",
    "family_of",
    "is_heard",
    "is_plain",
]
