"""What a forward pass kept, layer by layer, and the FLOPs that it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from thresher.attention import weight_in_reach
from thresher.families import Family, LayerShape
from thresher.packed import PackedBatch


@dataclass(frozen=True)
class Step:
    """One layer: the tokens at its entry and what became of them.

    Attributes
    ----------
    entry, exit : PackedBatch
        Before and after the drop.
    keep : bool tensor [tokens at entry], or None
        None where nothing was dropped.
    log_weight_in, log_weight_out : float tensors [tokens at entry], or None
        Soft stage: log of how alive each token is, before and after this layer's gate.
    """

    entry: PackedBatch
    exit: PackedBatch
    keep: Tensor | None = None
    log_weight_in: Tensor | None = None
    log_weight_out: Tensor | None = None


class Unfolded(Sequence[Step]):
    """Steps without gates, made when one is first asked for.

    Parameters
    ----------
    start : PackedBatch
        All tokens, before the first layer.
    depths : int64 tensor [tokens]
        How many layers' drops each token survives.
    starts : int32 tensor [layers, batch + 1]
        Where each sequence begins among the tokens alive after each layer's drop.
    """

    def __init__(self, start: PackedBatch, depths: Tensor, starts: Tensor):
        self._start, self._depths, self._starts = start, depths, starts

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: Any) -> Any:
        return self._steps[index]

    @cached_property
    def _steps(self) -> list[Step]:
        steps, entry, depths = [], self._start, self._depths
        for layer, starts in enumerate(self._starts):
            keep = depths > layer
            if (left := entry.positions[keep]).numel() == entry.tokens:
                steps.append(Step(entry, entry))
                continue
            leave = PackedBatch(starts, left, entry.original_lengths)
            steps.append(Step(entry, leave, keep))
            entry, depths = leave, depths[keep]
        return steps


@dataclass(frozen=True)
class Trace:
    """Record of one forward pass. Everything here is computed when it is asked for.

    Parameters
    ----------
    family : Family
    start : PackedBatch
        All tokens, before the first layer.
    prefix, suffix : int
        First and last tokens of every sequence that are never pruned.
    steps : sequence of Step
        One per layer.
    translated : bool
        Whether the states of dropped tokens were translated.
    """

    family: Family
    start: PackedBatch
    prefix: int
    suffix: int
    steps: Sequence[Step]
    translated: bool = False

    @cached_property
    def kept(self) -> Tensor:
        """int64 [layers, batch]: tokens alive after each layer's drop."""
        return torch.stack([step.exit.lengths for step in self.steps])

    @cached_property
    def flops(self) -> Tensor:
        """float64 [batch]: FLOPs of the layers on real tokens; in the soft stage their expectation,
        differentiable through the gates."""
        total = torch.zeros(self.start.batch, dtype=torch.float64, device=self.start.positions.device)
        for index, step in enumerate(self.steps):
            total = total + self._cost(self.family.shape(index), step)
        return total + self._translation() if self.translated else total

    def _translation(self) -> Tensor:
        """float64 [batch]: FLOPs of a square matrix for each dropped token."""
        last = self.steps[-1]
        left = self._weight(last, last.log_weight_out)
        left = left if last.keep is None else left * last.keep
        return 2 * self.family.dim**2 * (self.start.lengths - last.entry.sum(left))

    @cached_property
    def dense_flops(self) -> Tensor:
        """float64 [batch]: the same with nothing dropped."""
        shapes = [self.family.shape(index) for index in range(self.family.layers)]
        cost = {shape: self._cost(shape, Step(self.start, self.start)) for shape in set(shapes)}
        return torch.stack([cost[shape] for shape in shapes]).sum(0)

    @property
    def kept_share(self) -> float:
        """Share of the tokens alive after a layer, mean over layers; expected in the soft stage."""
        alive = 0.0
        for step in self.steps:
            weight = self._weight(step, step.log_weight_out).detach()
            alive += float((weight if step.keep is None else weight[step.keep]).sum())
        return alive / len(self.steps) / self.start.tokens

    @property
    def mean_gate(self) -> Tensor:
        """Scalar: mean gate over layers and the real tokens that may be pruned (the paper's regulariser).
        Needs the soft stage. 0 where no token may."""
        free = int((~self.start.ends(self.prefix, self.suffix)).sum())  # those gone by now have a gate of 0
        gates = [
            (b - a).exp()[~step.entry.ends(self.prefix, self.suffix)].sum()
            for step in self.steps
            if (a := step.log_weight_in) is not None and (b := step.log_weight_out) is not None and a is not b
        ]
        return torch.stack(gates).sum() / max(len(gates) * free, 1)

    @property
    def depths(self) -> list[Tensor]:
        """For each sequence an int64 tensor [tokens]: how many layers' drops each of its tokens survives."""
        alive = torch.arange(self.start.tokens, device=self.start.positions.device)
        depth = torch.zeros_like(alive)
        for step in self.steps:
            alive = alive if step.keep is None else alive[step.keep]
            depth[alive] += 1
        return list(depth.split(self.start.lengths.tolist()))

    def positions(self, row: int) -> list[list[int]]:
        """Original positions of the survivors of sequence `row`, after each layer."""
        out = []
        for step in self.steps:
            start, end = step.exit.cu_seqlens[row : row + 2].tolist()
            out.append(step.exit.positions[start:end].tolist())
        return out

    def _cost(self, shape: LayerShape, step: Step) -> Tensor:
        """float64 [batch]: FLOPs of a layer."""
        if step.log_weight_out is None and shape.window is None:  # counts of tokens tell all
            n, left = step.entry.lengths.double(), step.exit.lengths.double()
            return shape.flops(n, left, n * n, left * n)
        weight_in = self._weight(step, step.log_weight_in)
        weight_out = self._weight(step, step.log_weight_out)
        if step.keep is not None:
            weight_out = weight_out * step.keep
        entry, reach = step.entry, weight_in_reach(step.entry, shape.window, weight_in)
        return shape.flops(
            entry.sum(weight_in),
            entry.sum(weight_out),
            entry.sum(weight_in * reach),
            entry.sum(weight_out * reach),
        )

    @staticmethod
    def _weight(step: Step, log_weight: Tensor | None) -> Tensor:
        if log_weight is None:
            return torch.ones(step.entry.tokens, dtype=torch.float64, device=step.entry.positions.device)
        return log_weight.double().exp()
