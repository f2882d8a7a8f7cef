"""Every family with every pruner: how the conformance suites build them, and a second word on each rule.

A pruner that is new in `PRUNERS` takes part at once, with its default options; a class in ``RULES`` that says
in other words who must stay makes its test sharper.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from math import ceil, inf

import pytest
import torch

from thresher import PrunedModel, PruningConfig, UserError, native, prune
from thresher.plan import Soft
from thresher.pruners import PRUNERS

from .reference import Reference, masked_reference
from .tiny import FAMILIES, random_inputs

LENGTHS = [26, 1, 9, 20, 2, 9]
THRESHOLDS = (0.5, 0.625, 0.75, 0.625)  # exact in float32; about half of the tokens are left at the end
SLOPE = 0.1875
STILL = ExitStack()  # models that run without dropout until the test ends
OPTIONS = {
    "topk": {"dense_layers": 1, "slope": SLOPE},
    "random": {"dense_layers": 1, "slope": SLOPE},
}

PAIRS = list(product(FAMILIES, PRUNERS))


def _pairs(chosen: list[tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("family", "pruner"), chosen)


every_family = pytest.mark.parametrize("family", FAMILIES)
every_pair = _pairs(PAIRS)
every_adjustable = _pairs([(family, pruner) for family, pruner in PAIRS if PRUNERS[pruner].adjustable])
every_learner = _pairs([(family, pruner) for family, pruner in PAIRS if PRUNERS[pruner].learns])


@contextmanager
def using(instructions: str) -> Iterator[None]:
    """Native code with these instructions; the test is skipped where there are none such."""
    if native.library is None:
        pytest.skip("native code was not built")
    before = native.instructions
    try:
        native.use(instructions)
    except UserError as error:
        pytest.skip(str(error))
    yield
    native.use(before)


def config(pruner: str, options: dict | None = None, **settings) -> PruningConfig:
    return PruningConfig(pruner, {**OPTIONS.get(pruner, {}), **(options or {})}, **settings)


def build(
    family: str,
    pruner: str = "threshold",
    *,
    dtype: torch.dtype = torch.float64,
    options: dict | None = None,
    prefix: int = 1,
    suffix: int = 0,
    prefix_only_at_end: bool = False,
    thresholds: tuple[float, ...] = THRESHOLDS,
    **overrides,
) -> PrunedModel:
    """A tiny pruned model in eval mode, which prunes about half."""
    settings = {"prefix": prefix, "suffix": suffix, "prefix_only_at_end": prefix_only_at_end}
    pruned = prune(FAMILIES[family](dtype=dtype, **overrides), config(pruner, options, **settings))
    if pruned.pruner.ladder:
        pruned.pruner.thresholds.copy_(torch.tensor(thresholds))
    return pruned


def soften(pruned: PrunedModel, temperature: float) -> PrunedModel:
    """Soft stage, without dropout."""
    pruned.soft = Soft(temperature)
    STILL.enter_context(pruned.without_dropout())
    return pruned.train()


def tolerance(family: str) -> dict[str, float]:
    # transformers' ModernBERT rounds q and k to float32 to rotate them; the reference does not.
    return {"atol": 3e-5 if family.startswith("modernbert") else 1e-9, "rtol": 0}


def rows(inputs: dict[str, torch.Tensor]):
    """Each text of a batch alone, without its padding."""
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        yield {
            key: value[row : row + 1] if key.startswith("decoder") else value[row, mask][None]
            for key, value in inputs.items()
        }


class ThresholdRule:
    """importance >= threshold. ``margin``: how near to it any score came."""

    def __init__(self):
        self.margin = inf

    def __call__(self, layer, importance, alive, lengths):
        distance = (importance - THRESHOLDS[layer]).abs()[alive]
        self.margin = min(self.margin, float(distance.min()))
        return importance >= THRESHOLDS[layer]


class TopKRule:
    """The best ``ceil(share * length)``. ``margin``: between the last one in and the first one out."""

    def __init__(self):
        self.margin = inf

    def __call__(self, layer, importance, alive, lengths):
        keep = torch.zeros_like(alive)
        for row, length in enumerate(lengths.tolist()):
            wanted = ceil((1 - SLOPE * layer) * length)  # dense_layers = 1: layer 0 keeps all
            best = sorted(alive[row].nonzero().flatten().tolist(), key=lambda i: -importance[row, i])
            keep[row, best[:wanted]] = True
            if wanted < len(best):
                gap = importance[row, best[wanted - 1]] - importance[row, best[wanted]]
                self.margin = min(self.margin, float(gap))
        return keep


class RandomRule(TopKRule):
    """As many as top-k, by lots that hang on a token's place and on the length of its text alone."""

    def __call__(self, layer, importance, alive, lengths):
        lots = torch.zeros_like(importance)
        for row, length in enumerate(lengths.tolist()):
            first = int(self.mask[row].int().argmax())
            for place in range(length):
                lots[row, first + place] = self.lot(place, length)
        return super().__call__(layer, lots, alive, lengths)

    @staticmethod
    def lot(place, length):
        lot = place + 1009 * length
        for _ in range(3):
            lot = (lot + 1) * 1103515245 % (2**31 - 1)
            lot ^= lot >> 15
        return lot


class KeepAll:
    margin = inf
    drops = False

    def __call__(self, layer, importance, alive, lengths):
        return alive


RULES = {"threshold": ThresholdRule, "topk": TopKRule, "random": RandomRule, "none": KeepAll}
UNRULED: dict[str, str] = {}
"""Pruners without a rule of their own here, and why."""


def drops(pruner: str) -> bool:
    """Whether a pruner drops anything, by its rule."""
    return getattr(RULES.get(pruner), "drops", True)


def replay(trace, inputs):
    """A rule that lets live whom the trace says lived: for the pruners of `UNRULED`."""
    first = inputs["attention_mask"].int().argmax(1).tolist()

    def rule(layer, importance, alive, lengths):
        keep = torch.zeros_like(alive)
        for row in range(len(keep)):
            keep[row, [first[row] + p for p in trace.positions(row)[layer]]] = True
        return keep

    return rule


def clear_case(
    pruned: PrunedModel,
    family: str,
    pruner: str,
    prefix: int = 1,
    suffix: int = 0,
    lengths: list[int] = LENGTHS,
    dropped: str = "carry",
    **padding,
) -> tuple[dict[str, torch.Tensor], Reference, int]:
    """Inputs on which no score is within rounding of a decision, the masked reference of them, their seed."""
    margin = 2e-4 if family.startswith("modernbert") else 1e-6
    for seed in range(30):
        inputs = random_inputs(pruned.model, lengths, seed=seed, **padding)
        with torch.no_grad():
            rule = RULES[pruner]() if pruner in RULES else replay(pruned(**inputs).trace, inputs)
            rule.mask = inputs["attention_mask"]
            ends = {"prefix": prefix, "suffix": suffix, "dropped": dropped}
            reference = masked_reference(pruned.model, inputs, rule, **ends, maps=maps_of(pruned))
        if getattr(rule, "margin", inf) > margin:
            return inputs, reference, seed
    raise AssertionError("every one of 30 batches has a score within rounding of its threshold")


def maps_of(pruned: PrunedModel) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The matrices and vectors of a translator, for the reference."""
    return None if pruned.translator is None else (pruned.translator.weight, pruned.translator.bias)


def positions(alive: torch.Tensor, inputs: dict[str, torch.Tensor], row: int) -> list[int]:
    """Original positions of the tokens alive in a row of the reference."""
    first = int(inputs["attention_mask"][row].int().argmax())
    return [i - first for i in alive[row].nonzero().flatten().tolist()]
