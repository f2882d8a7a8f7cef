"""Ways to choose the tokens that stay. One method is one file and one line in this list."""

from __future__ import annotations

import inspect
import math
from types import UnionType
from typing import Any, get_args

from thresher.config import PruningConfig
from thresher.errors import UserError
from thresher.pruners.base import Decision, LayerView, Pruner, Sample
from thresher.pruners.ladder import Ladder
from thresher.pruners.none import NoPruning
from thresher.pruners.random import Random
from thresher.pruners.rule import Rule
from thresher.pruners.threshold import Threshold
from thresher.pruners.topk import TopK

PRUNERS: dict[str, type[Pruner]] = {
    "threshold": Threshold,
    "topk": TopK,
    "random": Random,
    "none": NoPruning,
}


def unpruned() -> PruningConfig:
    """The settings of a model that keeps every token."""
    return PruningConfig("none")


def make_pruner(config: PruningConfig, layers: int, dim: int) -> Pruner:
    """Build the pruner that `config` names, for a model of `layers` layers and hidden states of width `dim`.

    Raises
    ------
    UserError
        If there is no such pruner, it has no such option, or the option takes no such value.
    """
    if config.pruner not in PRUNERS:
        raise UserError(f"There is no pruner '{config.pruner}'; choose one of: {', '.join(PRUNERS)}.")
    kind = PRUNERS[config.pruner]
    known = _parameters(kind)
    if unknown := sorted(set(config.options) - set(known)):
        raise UserError(
            f"Pruner '{config.pruner}' has no option '{unknown[0]}'; "
            f"its options are: {', '.join(known) or 'none'}."
        )
    for name, value in config.options.items():
        if not _fits(value, known[name].annotation):
            raise UserError(f"Option '{name}' of pruner '{config.pruner}' cannot be {value!r:.100}.")
    return kind(layers, dim, **config.options)


def all_options(config: PruningConfig) -> dict[str, Any]:
    """Options, those that were left to their defaults too: these may change, and a saved model must not."""
    parameters = _parameters(PRUNERS[config.pruner])
    options = {name: parameter.default for name, parameter in parameters.items()} | config.options
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _parameters(kind: type[Pruner]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(kind, eval_str=True).parameters.values()
    return {p.name: p for p in parameters if p.name not in ("layers", "dim")}


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of a type such as ``str`` or ``float | None``. Other types take any finite value."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    plain = all(kind in (bool, int, float, str, type(None)) for kind in kinds)
    return not plain or type(value) in kinds or (float in kinds and type(value) is int)


__all__ = [
    "PRUNERS",
    "Decision",
    "Ladder",
    "LayerView",
    "Pruner",
    "Rule",
    "Sample",
    "all_options",
    "make_pruner",
    "unpruned",
]
