"""Ways to choose the tokens that stay. One method is one file and one line in this list."""

from __future__ import annotations

import inspect

from thresher.config import PruningConfig
from thresher.errors import UserError
from thresher.pruners.base import Decision, Pruner
from thresher.pruners.last_layer import LastLayer
from thresher.pruners.none import NoPruning
from thresher.pruners.random import Random
from thresher.pruners.threshold import Threshold
from thresher.pruners.topk import TopK

PRUNERS: dict[str, type[Pruner]] = {
    "threshold": Threshold,
    "topk": TopK,
    "random": Random,
    "last-layer": LastLayer,
    "none": NoPruning,
}


def make_pruner(config: PruningConfig, layers: int, dim: int) -> Pruner:
    """Build the pruner that `config` names, for a model of `layers` layers and hidden states of width `dim`.

    Raises
    ------
    UserError
        If there is no such pruner, or it has no such option.
    """
    if config.pruner not in PRUNERS:
        raise UserError(f"There is no pruner '{config.pruner}'; choose one of: {', '.join(PRUNERS)}.")
    kind = PRUNERS[config.pruner]
    known = [name for name in inspect.signature(kind).parameters if name not in ("layers", "dim")]
    if unknown := sorted(set(config.options) - set(known)):
        raise UserError(
            f"Pruner '{config.pruner}' has no option '{unknown[0]}'; "
            f"its options are: {', '.join(known) or 'none'}."
        )
    return kind(layers, dim, **config.options)


__all__ = ["PRUNERS", "Decision", "Pruner", "make_pruner"]
