"""What a calibration came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from thresher.reports.base import Kept, Report


@dataclass(frozen=True, kw_only=True)
class CalibrationData:
    """The texts of a calibration, and how many searched, chose and checked; `max_length` in tokens."""

    texts: str
    text: list[str]
    max_length: int
    searched_on: int
    chosen_on: int
    checked_on: int


@dataclass(frozen=True, kw_only=True)
class Calibration(Report, Kept):
    """What `calibrate` came to.

    Attributes
    ----------
    max_change, change : float
        Share of decisions that may differ from the base model's, and that do on the texts that checked.
    standard_error : float
        Of `change`.
    stepped_back : int
        How often a check failed.
    """

    command = "calibrate"

    out: str
    task: str
    metric: str
    data: CalibrationData
    seed: int
    max_change: float
    change: float
    standard_error: float
    stepped_back: int
    pruning: dict[str, Any]
