"""Architectures. One architecture is one file; `FAMILIES` is the list that knows them all."""

from __future__ import annotations

from torch import nn

from thresher.errors import UserError
from thresher.families.base import Family
from thresher.families.bert import Bert
from thresher.families.modernbert import ModernBert

FAMILIES: tuple[type[Family], ...] = (Bert, ModernBert)


def family_of(model: nn.Module) -> Family:
    """Find the family that knows a transformers model; a PEFT wrapper is looked through.

    Raises
    ------
    UserError
        For an architecture that no family claims, a decoder, or a model without a
        sequence-classification head.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = getattr(inner, "config", None)
    supported = ", ".join(name for family in FAMILIES for name in family.model_types)
    model_type = getattr(config, "model_type", type(inner).__name__)
    for family in FAMILIES:
        if model_type not in family.model_types:
            continue
        if getattr(config, "is_decoder", False):
            raise UserError(f"This {model_type} is configured as a decoder; only encoders can be pruned.")
        if not type(inner).__name__.endswith("ForSequenceClassification"):
            raise UserError(
                f"{type(inner).__name__} has no sequence-classification head. Load the model with "
                "AutoModelForSequenceClassification; if its head is not trained yet, run `thresher finetune`."
            )
        return family(inner)
    raise UserError(f"Architecture '{model_type}' is not supported. Supported encoders: {supported}.")


__all__ = ["FAMILIES", "Family", "family_of"]
