"""Scores that foretell saliency: against gradients of the transformers model and numpy's least squares."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from thresher.pruners.score import RIDGE
from thresher.training.saliency import fit_scores

from .cases import LENGTHS, build, every_family
from .tiny import random_inputs


def encoder(batches):
    """Gives these batches, whatever is asked."""
    return SimpleNamespace(batches=lambda rows: ((range(len(b["input_ids"])), b) for b in batches))


def gradients(model, inputs):
    """Norms ``[batch, n]`` of the output's gradient behind each layer, hidden states at entry, importance."""
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    states = output.hidden_states
    norms = [g.norm(dim=2) for g in torch.autograd.grad(output.logits.sum(), states[1:])]
    real = inputs["attention_mask"].double()
    received = [(a * real[:, None, :, None]).sum(2).mean(1) for a in output.attentions]
    return norms, [h.detach() for h in states], [r.detach() for r in received]


@pytest.mark.parametrize("score", ["both", "hidden"])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_by_least_squares(family, score):
    """One output: in whatever direction, gradients are its own but for a factor."""
    pruned = build(family, options={"score": score}, suffix=1, num_labels=1, attn_implementation="eager")
    batches = [random_inputs(pruned.model, LENGTHS, seed=seed) for seed in range(4)]
    before = {name: values.clone() for name, values in pruned.state_dict().items()}
    pruned.train()
    fit_scores(pruned, encoder(batches), {"input_ids": []})
    assert pruned.training
    pruned.eval()
    changed = [name for name, values in pruned.state_dict().items() if not torch.equal(values, before[name])]
    assert changed == ["pruner.weight"]

    for layer in range(4):
        features, wanted = [], []
        for inputs in batches:
            norms, states, received = gradients(pruned.model, inputs)
            for row, length in enumerate(LENGTHS):
                free = slice(1, length - 1)
                if length > 2:
                    h = states[layer][row, free].numpy()
                    y = norms[layer][row, free].clamp(min=1e-9).log().numpy()
                    if score == "both":
                        y = y - received[layer][row, free].log().numpy()
                    features.append(h - h.mean(0))
                    wanted.append(y - y.mean())
        x, y = np.concatenate(features), np.concatenate(wanted)
        ridge = RIDGE * (x**2).sum(0).mean()
        x = np.concatenate([x, ridge**0.5 * np.eye(x.shape[1])])  # ridge regression by made-up rows
        expected = np.linalg.lstsq(x, np.concatenate([y, np.zeros(x.shape[1])]))[0]
        np.testing.assert_allclose(pruned.pruner.weight[layer].detach(), expected, rtol=1e-4, atol=1e-5)


@every_family
def test_every_family_and_several_labels(family):
    """Finite scores in every layer, every text told of, and no gradients left behind."""
    pruned = build(family, suffix=1, prefix_only_at_end=False, dtype=torch.float32)
    batches = [random_inputs(pruned.model, LENGTHS, seed=seed) for seed in range(8)]
    told = []
    fit_scores(pruned, encoder(batches), {"input_ids": []}, advance=told.append)
    assert told == [len(LENGTHS)] * 8
    weight = pruned.pruner.weight.detach()
    assert torch.isfinite(weight).all()
    assert (weight.abs().amax(1) > 1e-3).all()
    assert all(parameter.grad is None for parameter in pruned.parameters())


def test_layers_that_drop_all_they_can_have_nothing_to_foretell():
    pruned = build("bert", suffix=1, prefix_only_at_end=True)
    fit_scores(pruned, encoder([random_inputs(pruned.model, LENGTHS)]), {"input_ids": []})
    assert (pruned.pruner.weight[3] == 0).all()
    assert (pruned.pruner.weight[:3].abs().amax(1) > 0).all()


def test_of_one_free_token_there_is_nothing_to_foretell():
    pruned = build("bert", suffix=1)
    fit_scores(pruned, encoder([random_inputs(pruned.model, [3, 3, 3])]), {"input_ids": []})
    assert (pruned.pruner.weight == 0).all()
