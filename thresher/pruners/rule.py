"""A pruner's rule as data, for code that runs all layers by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

LARGEST = 8.0  # logarithm of what a learned score may multiply importance by, or divide
TINY = 1e-9


@dataclass(frozen=True)
class Rule:
    """A token stays if its score is at or above the threshold of its layer, or it is at an end of its text.

    Attributes
    ----------
    thresholds : float32 tensor [layers]
        0 or less where every token stays.
    vectors : float32 tensor [layers, dim], optional
        Those of learned scores: see `fair_scores`. None: the score is the importance.
    alone : bool
        Whether importance gives only the sum of the scores.
    length : float
        Importance counts times this over the tokens of the text that are alive; 0: in fair shares.
    prefix, suffix : int
        First and last tokens of a text that stay.
    bare : int
        So many last layers keep the prefix alone.
    largest, least : float
        Bounds of a learned score's logarithm, and of the sum that it is divided by.
    """

    thresholds: Tensor
    vectors: Tensor | None = None
    alone: bool = False
    length: float = 0.0
    prefix: int = 1
    suffix: int = 0
    bare: int = 0
    largest: float = LARGEST
    least: float = TINY

    @classmethod
    def open(cls, layers: int) -> Self:
        """Every token stays."""
        return cls(torch.zeros(layers))

    def within(self, prefix: int, suffix: int, bare: bool) -> Self:
        """The same rule, with the ends that a model keeps."""
        return replace(self, prefix=prefix, suffix=suffix, bare=int(bare))
