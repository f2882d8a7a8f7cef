"""What a model is, whatever it is called and wherever it lies: so that a resumed run can tell another one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

PASSING = ("_name_or_path", "transformers_version")  # of a config: they say where a model comes from


def fingerprint(model: Any, tokenizer: Any, *more: Any) -> str:
    """A digest of weights, config and tokenizer.

    Parameters
    ----------
    model : PrunedModel or transformers model
    tokenizer : transformers tokenizer
    *more
        JSON values that belong to it as well.

    Returns
    -------
    str
        Equal where all that shapes the model's answers is equal.
    """
    config = {key: value for key, value in model.config.to_dict().items() if key not in PASSING}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = [repr(tokenizer) if backend is None else backend.to_str(), tokenizer.truncation_side]
    digest = hashlib.sha256(json.dumps([config, words, *more], sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor) and not name.endswith("_extra_state"):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
