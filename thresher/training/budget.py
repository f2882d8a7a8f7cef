"""Steering to a budget: the soft stage is pulled to it, the hard stage holds it."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from thresher.model import PrunedModel
from thresher.plan import Soft
from thresher.pruners import Pruner

# Soft stage: an augmented Lagrangian. The multiplier rises by ASCENT times the miss in every step;
# STIFFNESS adds a pull in proportion to the miss, which damps it.
ASCENT, STIFFNESS = 0.1, 4.0
# Hard stage: all thresholds are multiplied by exp(HOLD * miss) in every step; the miss is smoothed.
HOLD, SMOOTHING = 0.1, 0.9
# Soft stage: tokens less alive than this take part in next to nothing, and are not computed any further.
FAINT = 1e-3
OVERSHOOT = 0.02  # FLOPs ratio above the budget at which a checkpoint may still be chosen
OVER = -1000.0  # score of those above that, at most: below every quality
SETTLED = 0.25  # share of the hard stage after which what is steered is judged: it has come to its budget


class BudgetController(TrainerCallback, ExportableState):
    """Moves the training from stage to stage and keeps its FLOPs on target, rung by rung in turn.

    Soft stage: the temperature falls geometrically, the target moves linearly from the first batch's
    ratio to the budget over the first third, and the expected FLOPs ratio of the gated model, which
    is differentiable, is pulled to it by a penalty whose weight adapts. Hard stage: one common factor on all
    thresholds follows the measured ratio; a ladder that is asked for a drop is narrowed there (`narrow`).

    Parameters
    ----------
    soft_share : float
        Share of all steps that are soft.
    budgets : list of float
        One for each rung; empty if there is none.
    regularizer : float
        Weight of the mean gate where there is no budget.
    temperatures : tuple of float
        At the start and at the end of the soft stage.
    """

    def __init__(
        self, soft_share: float, budgets: list[float], regularizer: float, temperatures: tuple[float, float]
    ):
        self.soft_share = soft_share
        self.budgets = budgets
        self.regularizer = regularizer
        self.temperatures = temperatures
        rungs = max(1, len(budgets))
        self.multiplier = [0.0] * rungs
        # Ratio of the first batch: wide gates that start where the budget is met are not there themselves.
        self.first: list[float | None] = [None] * rungs
        self.smoothed: list[float | None] = [None] * rungs
        self.live = list(range(rungs))  # rungs that are trained
        self.rung = 0
        self.progress = 0.0  # through the soft stage
        self.settled = False
        self.stage = "hard"
        self.losses: list[float] = []  # of the batches since the last log
        self.kept = 1.0  # share of tokens alive, mean over layers, in the last batch
        self.temperature: float | None = None
        self._ratios: list[float] = []

    def state(self) -> dict[str, Any]:
        """What a checkpoint must remember."""
        return {
            "args": {
                "soft_share": self.soft_share,
                "budgets": self.budgets,
                "regularizer": self.regularizer,
                "temperatures": self.temperatures,
            },
            "attributes": {
                name: list(getattr(self, name))
                for name in ("multiplier", "smoothed", "first", "live", "losses")
            },
        }

    @property
    def target(self) -> float | None:
        """The FLOPs ratio wanted now, of the rung that is trained."""
        return self._target(self.rung)

    def _target(self, rung: int) -> float | None:
        if not self.budgets:
            return None
        budget, first = self.budgets[rung], self.first[rung]
        if self.stage == "hard":
            return budget
        first = 1.0 if first is None else first
        return first + (budget - first) * min(1.0, 3 * self.progress)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model: PrunedModel = kwargs["model"]
        soft_steps = round(self.soft_share * state.max_steps)
        stage = "soft" if state.global_step < soft_steps else "hard"
        if state.global_step == soft_steps:
            self.smoothed = [None] * len(self.smoothed)  # expected FLOPs end here, and measured ones begin
        self.stage = stage
        self.settled = state.global_step - soft_steps >= SETTLED * (state.max_steps - soft_steps)
        self.rung = self.live[state.global_step % len(self.live)]
        self.temperature, soft = None, None
        if stage == "soft":
            self.progress = state.global_step / max(1, soft_steps - 1)
            start, end = self.temperatures
            self.temperature = start * (end / start) ** self.progress
            soft = Soft(self.temperature, FAINT)
        model.rung, model.soft = self.rung, soft

    def penalty(self, trace: Any, weights: Tensor | float = 1.0) -> Tensor | float:
        """Added to the loss of a training batch, whose texts' FLOPs count by `weights` ``[batch]``; the FLOPs
        ratio is noted on the way."""
        ratio = (weights * trace.flops).sum() / (weights * trace.dense_flops).sum()
        self._ratios.append(float(ratio.detach()))
        self.kept = trace.kept_share
        if self.first[self.rung] is None:
            self.first[self.rung] = self._ratios[0]
        if self.stage == "hard":
            return 0.0
        if self.target is None:
            return self.regularizer * trace.mean_gate
        miss = ratio - self.target
        return self.multiplier[self.rung] * miss + STIFFNESS / 2 * miss**2

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        pruner: Pruner = kwargs["model"].pruner
        if self.stage == "soft":
            pruner.clamp()
        ratio = sum(self._ratios) / len(self._ratios)
        self._ratios.clear()
        pace = len(self.live)  # one step in so many is a rung's own
        if (before := self.smoothed[self.rung]) is not None:
            memory = SMOOTHING**pace
            ratio = memory * before + (1 - memory) * ratio
        self.smoothed[self.rung] = ratio
        if self.target is None:
            return
        miss = ratio - self.target
        if self.stage == "soft":
            self.multiplier[self.rung] += pace * ASCENT * miss
        elif pruner.adjustable:
            pruner.rescale(math.exp(pace * HOLD * miss), self.rung)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == state.max_steps:
            control.should_evaluate = True  # the last checkpoint is a candidate too

    def score(self, quality: float, ratios: list[float], step: int) -> float:
        """How much a checkpoint is worth: its quality if it is a hard model within the budgets. Else, below
        all of those, hard models by how little they miss, at worst, and below them by age those that are
        soft, or have not yet come to their budgets."""
        if self.stage == "soft" or (self.budgets and not self.settled):
            return -1e6 + step
        budgets = [self.budgets[rung] for rung in self.live] if self.budgets else ratios
        over = max(ratio - budget for ratio, budget in zip(ratios, budgets, strict=True))
        return OVER * (1 + over) if over > OVERSHOOT else quality

    def narrow(self, drops: dict[int, float], bound: float) -> None:
        """Train from now on only the two rungs that the bound is between, the hardest that keeps it and the
        one after it, once they have come to their budgets in the hard stage.

        Parameters
        ----------
        drops : dict of int to float
            Points that each rung loses now. No standard error is kept clear of the bound yet: rungs still
            recover.
        bound : float
            Points that may be lost.
        """
        if self.settled and len(self.live) > 2:
            order = sorted(drops, key=lambda rung: -self.budgets[rung])
            last = max((place for place, rung in enumerate(order) if drops[rung] <= bound), default=0)
            self.live = order[min(last, len(order) - 2) :][:2]

    def log(self) -> dict[str, Any]:
        """For the history: stage, temperature, share of tokens kept in the last batch; FLOPs ratio and
        target, mean over rungs."""
        found: dict[str, Any] = {"stage": self.stage, "kept": round(self.kept, 4)}
        if self.temperature is not None:
            found["temperature"] = round(self.temperature, 4)
        if ratios := [ratio for rung in self.live if (ratio := self.smoothed[rung]) is not None]:
            found["flops_ratio"] = round(sum(ratios) / len(ratios), 4)
        if targets := [target for rung in self.live if (target := self._target(rung)) is not None]:
            found["target"] = round(sum(targets) / len(targets), 4)
        return found
