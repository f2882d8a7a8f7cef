"""What an evaluation came to."""

from __future__ import annotations

from dataclasses import dataclass

from thresher.reports.base import Kept, Quality, Report
from thresher.reports.speed import Speed


@dataclass(frozen=True, kw_only=True)
class EvaluationData:
    """The texts of an evaluation; lengths in tokens, as they were cut and as in training."""

    eval: str
    text: list[str]
    label: str | None
    texts: int
    max_length: int
    trained_length: int
    truncated: int


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a model ran.

    Attributes
    ----------
    budget : float, or None
        Which of its budgets, of a model that holds several.
    precision, engine : str
    threads : int
    cost : float, or None
        Points that the precision costs against fp32; None in fp32.
    tokens_dropped_elsewhere : float, or None
        Share of the tokens that another layer drops than in fp32.
    """

    budget: float | None
    precision: str
    engine: str
    threads: int
    cost: float | None = None
    tokens_dropped_elsewhere: float | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation(Report, Kept):
    """What `evaluate` came to.

    Attributes
    ----------
    base, base_measured_on : str, or None
        The base model, and what its quality was measured on when the model was pruned.
    quality : dict of str to Quality or None
        By the name of the model: base (None of a model that was calibrated), dense, pruned, and where
        another precision ran "pruned, fp32".
    speed : Speed, or None
        None where it was not asked for.
    """

    command = "evaluate"

    base: str | None
    base_measured_on: str | None
    data: EvaluationData
    quality: dict[str, Quality | None]
    settings: Ran
    speed: Speed | None = None
