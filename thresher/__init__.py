"""Transformer encoders made faster by learned token pruning.

model = thresher.prune(hf_model, PruningConfig(pruner="threshold"))
model = PrunedModel.from_pretrained(folder)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from thresher.version import __version__

if TYPE_CHECKING:
    from thresher.batches import token_batches
    from thresher.config import PruningConfig
    from thresher.errors import UserError
    from thresher.model import PrunedModel, prune

__all__ = ["PrunedModel", "PruningConfig", "UserError", "__version__", "prune", "token_batches"]

_HOMES = {
    "PrunedModel": "model",
    "PruningConfig": "config",
    "UserError": "errors",
    "prune": "model",
    "token_batches": "batches",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for, so that the command line answers before torch is there.
    if name not in _HOMES:
        raise AttributeError(f"module 'thresher' has no attribute '{name}'")
    return getattr(import_module(f"thresher.{_HOMES[name]}"), name)
