"""Thresher: transformer encoders made faster by learned token pruning."""

from thresher.config import PruningConfig
from thresher.errors import UserError
from thresher.model import PrunedModel, prune
from thresher.version import __version__

__all__ = ["PrunedModel", "PruningConfig", "UserError", "__version__", "prune"]
