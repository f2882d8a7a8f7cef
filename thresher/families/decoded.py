"""Encoders under a decoder: which models of such an architecture can be pruned."""

from __future__ import annotations

from typing import Any

from thresher.errors import UserError
from thresher.heads import head_for


def refuse_decoded(model: Any, holder: Any, instead: str) -> None:
    """Refuse a model that answers by its decoder, unless the decoder generates and may read survivors.

    Parameters
    ----------
    model : PreTrainedModel
    holder : nn.Module
        What holds the encoder, and maybe a decoder.
    instead : str
        What to load, for the message.

    Raises
    ------
    UserError
    """
    name = type(model).__name__
    if hasattr(holder, "decoder") and not head_for(name).decodes:
        raise UserError(f"{name} answers by its decoder; only encoders can be pruned: load {instead}.")
