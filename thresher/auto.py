"""`PrunedModel` as Auto classes of transformers open it from a folder, and sentence-transformers by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, cast

import torch

from thresher import model
from thresher.errors import UserError

HARMLESS = (
    "_from_auto",
    "trust_remote_code",
    "adapter_kwargs",
    "attn_implementation",
    "low_cpu_mem_usage",
    "add_pooling_layer",
)
"""Options that do not change what a pruned model answers: attention is computed by its own code."""


class PrunedModel(model.PrunedModel):
    """A pruned model whose class the folder's ``modeling_thresher.py`` names."""

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *args: Any, config: Any = None, dtype: Any = None, **options: Any
    ) -> Self:
        """Open a folder or a hub repository; parameters as of `thresher.PrunedModel.from_pretrained`.

        Parameters
        ----------
        path : str or Path
        config : PreTrainedConfig, optional
            As transformers has read it. The folder's own config is read once more, and counts.
        dtype : torch.dtype or str, optional
            Default: as saved.
        **options
            Of `thresher.PrunedModel.from_pretrained`; and of transformers, where nothing hangs on it.

        Raises
        ------
        UserError
            For another option, or another number of labels than the model has.
        """
        if cls is not PrunedModel:  # transformers mixes its own generate into classes that have one
            return cast("Self", PrunedModel.from_pretrained(path, config=config, dtype=dtype, **options))
        dtype = options.pop("torch_dtype", None) if dtype is None else dtype
        ready = {name: options.pop(name) for name in ("precision", "engine") if name in options}
        known = {name: x for name, x in options.items() if name not in HARMLESS and x is not None}
        found = super().from_pretrained(path, **known)
        has = found.config.num_labels
        if config is not None and config.num_labels != has:
            raise UserError(f"'{path}' has {has} labels, not {config.num_labels}: leave out num_labels.")
        if dtype not in (None, "auto"):
            found = found.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return found.for_inference(**ready) if ready else found

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Nothing: `save_pretrained` writes what Auto classes need, whichever they are."""
