"""The order in which thresholds rise where nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from thresher.training.probe import Point

LEVELS = (0.1, 0.2, 0.35, 0.55, 0.8, 1.0, 1.5, 2.2)  # thresholds to try in each layer, in fair shares
SMALL = 1e-3  # of the FLOPs: a step that saves less is joined to the next


def steps(probe: Callable[[Tensor], Point], layers: int) -> Iterator[tuple[Tensor, Point]]:
    """From no pruning to as much as there can be, one layer's threshold a step: greedily, the step that saves
    most FLOPs for the divergence it adds. Only those steps are measured again that still look best.

    Yields
    ------
    thresholds : float32 tensor [layers]
    point : Point
    """
    levels = torch.tensor((0.0, *LEVELS))
    level = torch.zeros(layers, dtype=torch.long)
    here = probe(levels[level])
    yield levels[level], here
    promise = dict.fromkeys(range(layers), float("inf"))  # FLOPs for divergence, when last measured
    while promise:
        fresh: dict[int, tuple[Tensor, Point]] = {}
        while promise and (best := max(promise, key=promise.__getitem__)) not in fresh:
            there, point = level.clone(), here
            while here.flops_ratio - point.flops_ratio < SMALL and there[best] < len(LEVELS):
                there[best] += 1
                point = probe(levels[there])
            if (saved := here.flops_ratio - point.flops_ratio) < SMALL:
                del promise[best]  # this layer has nothing left to give
            else:
                promise[best] = saved / (max(0.0, point.divergence - here.divergence) + 1e-6)
                fresh[best] = there, point
        if promise:
            level, here = fresh[best]
            yield levels[level], here
