"""Rotary positions: what families that have them share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from thresher.errors import UserError

BY_LENGTH = "longrope"  # "dynamic" angles change for texts alone that are longer than a model takes


def check_rotary(rotary: Any, head_dim: int) -> None:
    """Refuse angles that depend on the other texts of a batch, or that are for heads of another width.

    Parameters
    ----------
    rotary : nn.Module
        transformers' module that makes cosines and sines.
    head_dim : int

    Raises
    ------
    UserError
        With the kind.
    """
    kinds = rotary.rope_type.values() if isinstance(rotary.rope_type, dict) else [rotary.rope_type]
    if BY_LENGTH in kinds:
        raise UserError(f"rope_type is '{BY_LENGTH}', whose angles depend on the other texts of a batch.")
    if any(2 * len(frequencies) != head_dim for frequencies in rotary.buffers()):
        raise UserError(f"The model's rotary positions do not fit heads of {head_dim} dimensions.")


def angles(rotary: Any, hidden: Tensor, positions: Tensor, *kind: str) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[tokens, head_dim]``, in the type of `hidden`, of positions ``[tokens]``; `kind` of
    layer where there are several."""
    cos, sin = rotary(hidden, positions[None], *kind)
    return cos[0], sin[0]


def turns(rotary: Any, length: int, device: torch.device, *kind: str) -> Tensor:
    """float32 ``[length, 2, head_dim / 2]``: cosines and sines of all positions, as `StageModules` wants
    them."""
    like = torch.empty(0, dtype=torch.float32, device=device)
    cos, sin = angles(rotary, like, torch.arange(length, device=device), *kind)
    half = cos.shape[-1] // 2
    return torch.stack([cos[:, :half], sin[:, :half]], 1).contiguous()
