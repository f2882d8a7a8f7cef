"""Hidden states, and the loss on them: against transformers and against loops over tokens."""

from __future__ import annotations

import pytest
import torch

from thresher.objectives.distil_hidden import hidden_distance
from thresher.training.teacher import Teacher

from .cases import LENGTHS, build, every_family, every_pair, rows, tolerance
from .tiny import random_inputs


@every_family
def test_states_are_those_of_transformers(family, no_grad):
    pruned = build(family, "none")
    inputs = random_inputs(pruned.model, LENGTHS)
    states = pruned(**inputs, output_hidden_states=True).hidden_states
    wanted = pruned.model(**inputs, output_hidden_states=True).hidden_states
    real = inputs["attention_mask"].bool()
    layers = range(len(states) - 1 if family.startswith("modernbert") else len(states))  # its last is normed
    for layer in layers:
        torch.testing.assert_close(states[layer], wanted[layer][real], **tolerance(family))
    assert pruned(**inputs).hidden_states is None


def by_loops(pruned, inputs, trace, states, wanted):
    """Token by token, with Python's numbers."""
    total, layers = 0.0, len(trace.steps)
    real = inputs["attention_mask"].bool()
    starts = [0, *real.sum(1).cumsum(0).tolist()]
    for layer in range(layers):
        base = wanted[layer + 1].double()  # behind the embeddings
        unit = sum(float(((column - column.mean()) ** 2).mean()) for column in base.T) / base.shape[1]
        errors, at = [], 0
        found = states[layer + 1].detach().double()
        for row in range(len(real)):
            for position in trace.positions(row)[layer]:
                difference = found[at] - base[starts[row] + position]
                errors.append(sum(float(x) ** 2 for x in difference) / base.shape[1] / unit)
                at += 1
        total += sum(errors) / len(errors)
    return total / layers


@every_pair
def test_loss_by_loops(family, pruner):
    pruned, other = build(family, pruner), build(family, "none")
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    teacher = Teacher(other)
    inputs = random_inputs(pruned.model, LENGTHS)
    output = pruned(**inputs, output_hidden_states=True)
    wanted = teacher.states(inputs)
    found = hidden_distance(output.trace, output.hidden_states, wanted)
    assert float(found.detach()) == pytest.approx(
        by_loops(pruned, inputs, output.trace, output.hidden_states, wanted), rel=1e-4
    )
    found.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in pruned.model.parameters())


def test_teacher_stays_as_it_was():
    pruned = build("bert", "none", dtype=torch.float32)
    teacher = Teacher(pruned)
    inputs = random_inputs(pruned.model, LENGTHS)
    before = teacher.states(inputs)
    for text, start, length in zip(
        rows(inputs), [0, *torch.tensor(LENGTHS).cumsum(0)], LENGTHS, strict=False
    ):
        torch.testing.assert_close(
            teacher.states(text)[3], before[3][start : start + length], atol=1e-5, rtol=0
        )
    pruned.train()
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.mul_(2)
    assert all(torch.equal(a, b) for a, b in zip(teacher.states(inputs), before, strict=True))
    assert pruned.precision is None
