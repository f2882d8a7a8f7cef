"""Ways to choose the tokens that stay. One method is one file and one line in this list."""

from __future__ import annotations

import inspect
from typing import Any

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
    known = _defaults(kind)
    if unknown := sorted(set(config.options) - set(known)):
        raise UserError(
            f"Pruner '{config.pruner}' has no option '{unknown[0]}'; "
            f"its options are: {', '.join(known) or 'none'}."
        )
    return kind(layers, dim, **config.options)


def all_options(config: PruningConfig) -> dict[str, Any]:
    """Options, those that were left to their defaults too: these may change, and a saved model must not."""
    options = _defaults(PRUNERS[config.pruner]) | config.options
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _defaults(kind: type[Pruner]) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("layers", "dim")}


__all__ = ["PRUNERS", "Decision", "Pruner", "all_options", "make_pruner"]
