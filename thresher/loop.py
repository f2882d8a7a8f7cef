"""The one layer loop: a packed batch that shrinks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thresher.attention import attend
from thresher.carried import Carried, Translator, filled
from thresher.config import PruningConfig
from thresher.conventions import refusing_ids
from thresher.distributed import take_part
from thresher.engines import Engine, Heads
from thresher.families import Family, is_heard
from thresher.heads import Head
from thresher.packed import PackedBatch
from thresher.plan import Plan
from thresher.pruners import Decision, LayerView, Pruner, Rule
from thresher.trace import Step, Trace, Unfolded


@dataclass(frozen=True)
class Parts:
    """What a model is made of.

    Attributes
    ----------
    family : Family
    engine : Engine
    pruner : Pruner
    head : Head
    pruning : PruningConfig
    translator : Translator, or None
        What translates the states of dropped tokens.
    checkpointed : callable
        From a layer's index and a function to the function that runs in its place: the same, or one whose
        activations are computed a second time on the way back.
    """

    family: Family
    engine: Engine
    pruner: Pruner
    head: Head
    pruning: PruningConfig
    translator: Translator | None
    checkpointed: Callable[[int, Any], Any]

    @classmethod
    def of(cls, model: Any) -> Parts:
        """Those of a `PrunedModel`."""
        names = ("family", "engine", "pruner", "head", "pruning", "translator", "_checkpointed")
        return cls(*(getattr(model, name) for name in names))


def run(
    parts: Parts,
    packed: PackedBatch,
    inputs: dict[str, Tensor],
    plan: Plan,
    states: list[Tensor] | None = None,
) -> tuple[Any, Trace]:
    """Run a packed batch: parameters and returns as of `PrunedModel.run`.

    Training, evaluation and the dense model differ in what the pruner answers, and in nothing else.
    """
    parts.family.check_length(int(packed.lengths.max()))
    with refusing_ids():
        hidden, heads = parts.engine.embed(inputs, packed)
    rule = None if states is not None else _rule(parts, plan)
    wants_all = parts.head.reads == "all"
    carries = wants_all and parts.pruning.dropped != "mean"
    passed = None if rule is None else parts.engine.layers(hidden, heads, packed, rule, carries)
    steps: Sequence[Step]
    if passed is not None:
        hidden, left, weight = passed.hidden, passed.packed, None
        steps = Unfolded(packed, passed.depths, passed.starts)
        if parts.translator is not None:
            hidden = parts.translator.of_depths(hidden, passed.depths)
    else:
        carried = Carried(packed, parts.translator) if carries else None
        hidden, left, weight, steps = _each(parts, hidden, heads, packed, plan, states, carried)
        hidden = hidden if carried is None else carried.all(hidden, weight)
    if wants_all and not carries:
        hidden = filled(hidden, weight, left, packed)
    if wants_all:
        left, weight = packed, None
    trace = Trace(parts.family, packed, *parts.pruning.ends, steps, parts.translator is not None)
    return _answer(parts, hidden, left, weight, plan), trace


def _each(
    parts: Parts,
    hidden: Tensor,
    heads: Heads | None,
    packed: PackedBatch,
    plan: Plan,
    states: list[Tensor] | None,
    carried: Carried | None,
) -> tuple[Tensor, PackedBatch, Tensor | None, list[Step]]:
    """One layer after the other: the last hidden states, whose they are and how alive, and what became of
    the tokens."""
    family, pruner = parts.family, parts.pruner
    steps = []
    if states is not None:
        states.append(hidden)
    log_weight: Tensor | None = None  # soft stage: log of how alive each token is
    for layer in range(family.layers):
        assert heads is not None
        context, decision = _attend(parts, layer, hidden, heads, packed, log_weight, plan)
        survivors, log_gate = decision.survivors, decision.log_gate
        entry, log_weight_in = packed, log_weight
        if log_gate is not None:
            log_weight_in = torch.zeros_like(log_gate) if log_weight is None else log_weight
            log_weight = log_weight_in + log_gate
        log_weight_out = log_weight
        if survivors is not None:
            packed = packed.at(survivors)
            log_weight = None if log_weight is None else log_weight[decision.keep]
        steps.append(Step(entry, packed, decision.keep, log_weight_in, log_weight_out))
        if carried is not None and (log_gate is None or pruner.accumulates):
            carried.leave(layer, hidden, steps[-1])
        gate = log_gate.exp() if log_gate is not None and not pruner.accumulates else None
        stage = parts.checkpointed(layer, parts.engine.stage)
        hidden, heads = stage(layer, hidden, context, packed, survivors, gate)
        if states is not None:
            states.append(hidden)
    weight = log_weight.exp() if log_weight is not None and pruner.accumulates else None
    return hidden[: packed.tokens], packed, weight, steps


def _answer(parts: Parts, hidden: Tensor, packed: PackedBatch, weight: Tensor | None, plan: Plan) -> Any:
    """What the head makes of the last hidden states ``[tokens, dim]``."""
    output = parts.head(hidden, packed, weight)
    if parts.pruning.offset is not None and not plan.dense:
        output.logits = output.logits + output.logits.new_tensor(parts.pruning.offset)
    if plan.training:
        others = () if parts.translator is None else parts.translator.parameters()
        output.logits = take_part(output.logits, parts.pruner, plan.soft is not None, others)
    return output


def _rule(parts: Parts, plan: Plan) -> Rule | None:
    """What `_decide` does in all layers, as data; None where only asking tells."""
    if plan.training or plan.soft is not None or is_heard(parts.pruner):
        return None
    if plan.dense:
        return Rule.open(parts.family.layers)
    rule, pruning = parts.pruner.rule(plan), parts.pruning
    return None if rule is None else rule.within(*pruning.ends, bare=pruning.prefix_only_at_end)


def _attend(
    parts: Parts,
    layer: int,
    hidden: Tensor,
    heads: Heads,
    packed: PackedBatch,
    log_weight: Tensor | None,
    plan: Plan,
) -> tuple[Tensor, Decision]:
    """Context rows ``[survivors, heads * head_dim]`` of one layer, and who survives it.

    What attention holds to make them is freed on return.
    """
    shape = parts.family.shape(layer)
    attended = attend(
        *heads,
        packed,
        scale=shape.scale,
        window=shape.window,
        log_weight=log_weight if parts.pruner.accumulates else None,
        dropout=parts.family.attention_dropout(layer) if plan.dropout else 0.0,
        bias=parts.family.bias(layer, heads, packed),
    )
    tokens, (_, keys, _) = packed.tokens, heads
    view = LayerView(layer, hidden[:tokens], keys[:tokens], packed, attended.importance)
    decision = _decide(parts, view, log_weight, plan)
    return attended.context(decision.survivors), decision


def _decide(parts: Parts, layer: LayerView, log_weight: Tensor | None, plan: Plan) -> Decision:
    """The pruner's answer with prefix and suffix put back, and in the soft stage without the tokens that are
    as good as dropped."""
    if plan.dense:
        return Decision()
    packed, pruning = layer.packed, parts.pruning
    if pruning.prefix_only_at_end and layer.index == parts.family.layers - 1:
        return Decision(keep=packed.ends(pruning.prefix, 0))
    found = parts.pruner(layer, plan)
    keep, log_gate = found.keep, found.log_gate
    if keep is None and log_gate is None:
        return found
    ends = packed.ends(*pruning.ends)
    if log_gate is not None:
        log_gate = log_gate.masked_fill(ends, 0.0)
        if parts.pruner.accumulates and plan.soft is not None and plan.soft.faint > 0:
            alive = log_gate if log_weight is None else log_weight + log_gate
            keep = alive.detach() >= math.log(plan.soft.faint)
    return Decision(None if keep is None else keep | ends, log_gate)
