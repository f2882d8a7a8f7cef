"""Where models run in a benchmark."""

from __future__ import annotations

import torch

from thresher.errors import UserError


def check_device(device: str, profile: bool) -> None:
    """Refuse, by a `UserError`, a device that is not there, or whose time `profile` cannot split."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"`device` is '{device}', which PyTorch does not find here; choose cpu.") from None
    if profile and device != "cpu":
        raise UserError("`profile` splits the time of CPUs alone; leave it out.")


def device_name(device: str) -> str:
    """As reports say it: a GPU by its name."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
