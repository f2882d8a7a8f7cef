"""Gates: against the masked reference, towards the hard model, and the gradients that they carry."""

from dataclasses import replace

import pytest
import torch

from thresher.plan import Soft
from thresher.pruners import PRUNERS

from .cases import LENGTHS, THRESHOLDS, build, clear_case, every_family, every_learner, soften, tolerance
from .reference import masked_reference
from .tiny import random_inputs

TEMPERATURE = 0.25
FORMS = {  # options of the pruner; the scores of "learned" are importance while their vectors are 0
    "exact": {"gate": "exact", "score": "attention"},
    "paper": {"gate": "paper", "score": "attention"},
    "learned": {"score": "both"},
}
forms = pytest.mark.parametrize("form", FORMS)


def gate_rule(thresholds, form="exact", temperature=TEMPERATURE):
    def linear(layer, importance, alive):
        return ((importance - thresholds[layer]) / temperature).sigmoid()

    def ratio(layer, importance, alive):  # 1 / (1 + (threshold / score)^(1 / 2T)); dead tokens have no score
        share = (thresholds[layer] / importance.clamp(min=1e-6)) ** (0.5 / temperature)
        return 1 / (1 + share)

    return ratio if form == "learned" else linear


def gating(thresholds, form):
    """For the masked reference."""
    return {"gate_rule": gate_rule(thresholds, form), "gate_form": "paper" if form == "paper" else "exact"}


def reach(pruned, inputs, layer):
    """float64 [b, n, n]: 1 where a query of this layer may see a key, both real. Right padding."""
    real = inputs["attention_mask"].double()
    pairs = real[:, :, None] * real[:, None, :]
    config = pruned.config
    if config.model_type == "modernbert" and config.layer_types[layer] == "sliding_attention":
        at = torch.arange(real.shape[1])
        pairs = pairs * ((at[:, None] - at[None, :]).abs() <= config.sliding_window)
    return pairs


def expected_flops(pruned, inputs, gates):
    """By hand: every token counts as much as it is alive: q, k, v and scores at entry, the rest after."""
    d, f = pruned.config.hidden_size, pruned.config.intermediate_size
    matrices = 3 if pruned.config.model_type == "modernbert" else 2
    before, total = inputs["attention_mask"].double(), 0.0
    for layer, gate in enumerate(gates):
        after = before * gate
        pairs = reach(pruned, inputs, layer)
        pairs_in = torch.einsum("bq,bqk,bk->b", before, pairs, before)
        pairs_out = torch.einsum("bq,bqk,bk->b", after, pairs, before)
        tokens = 3 * d * d * before.sum(1) + (d * d + matrices * d * f) * after.sum(1)
        total = total + 2 * (tokens + d * pairs_in + d * pairs_out)
        before = after
    return total


@every_family
@forms
@pytest.mark.parametrize("prefix", [1, 2])
@pytest.mark.usefixtures("no_grad")
def test_gates_equal_the_reference(family, form, prefix):
    ends = {"prefix": prefix, "suffix": prefix - 1}
    pruned = soften(build(family, options=FORMS[form], **ends), TEMPERATURE)
    inputs = random_inputs(pruned.model, LENGTHS)
    output = pruned(**inputs)
    reference = masked_reference(pruned.model, inputs, **gating(THRESHOLDS, form), **ends)
    torch.testing.assert_close(output.logits, reference.logits, **tolerance(family))
    assert torch.equal(output.trace.kept, torch.tensor(LENGTHS).expand(4, -1))
    dense = pruned.model(**inputs).logits
    assert not torch.allclose(output.logits, dense, atol=1e-3)

    # ModernBERT: its float32 rotation again
    by_hand = expected_flops(pruned, inputs, reference.gates)
    rtol = 1e-4 if family.startswith("modernbert") else 1e-9
    torch.testing.assert_close(output.trace.flops, by_hand, rtol=rtol, atol=0)
    assert (output.trace.flops < output.trace.dense_flops)[torch.tensor(LENGTHS) > sum(ends.values())].all()

    place, behind = torch.arange(max(LENGTHS)), torch.tensor(LENGTHS)[:, None] - ends["suffix"]
    free = inputs["attention_mask"].bool() & (place >= prefix) & (place < behind)
    mean = torch.stack([gate[free] for gate in reference.gates]).mean()
    torch.testing.assert_close(output.trace.mean_gate, mean, atol=tolerance(family)["atol"], rtol=0)
    assert 0.2 < mean < 0.9


def test_mean_gate_of_texts_that_are_all_prefix():
    """A batch of empty texts must not turn the loss into NaN."""
    pruned = soften(build("bert", prefix=2), TEMPERATURE)
    mean = pruned(**random_inputs(pruned.model, [1, 2])).trace.mean_gate
    assert mean == 0
    mean.backward()
    assert (pruned.pruner.table.grad == 0).all()


@every_learner
@pytest.mark.usefixtures("no_grad")
def test_temperature_to_zero_is_the_hard_model(family, pruner):
    """The exact form: outputs and FLOPs, not only the masks."""
    pruned = build(family, pruner)
    assert pruned.pruner.accumulates
    inputs, reference, _ = clear_case(pruned, family, pruner)
    assert (reference.flops < reference.dense_flops)[torch.tensor(LENGTHS) > 2].all()
    hard = pruned(**inputs)
    distance = []
    for temperature in (0.3, 0.03, 1e-8):
        soft = soften(pruned, temperature)(**inputs)
        distance.append(float((soft.logits - hard.logits).abs().max()))
    assert distance[2] < 1e-6 < distance[1]
    assert distance[1] < distance[0]
    torch.testing.assert_close(soft.trace.flops, hard.trace.flops, rtol=1e-9, atol=0)


@pytest.mark.usefixtures("no_grad")
def test_the_share_of_tokens_tends_to_that_of_the_hard_model():
    """Also where all but [CLS] goes at the end, which no gate says."""
    pruned = build("bert", prefix_only_at_end=True)
    inputs, *_ = clear_case(pruned, "bert", "threshold")
    hard = pruned(**inputs).trace
    soft = soften(pruned, 1e-8)(**inputs).trace
    assert hard.kept_share == pytest.approx(float(hard.kept.sum()) / 4 / sum(LENGTHS))
    assert soft.kept_share == pytest.approx(hard.kept_share)


@every_learner
def test_tokens_that_are_hardly_alive_are_not_computed(family, pruner):
    """And what they would have done is in proportion to how alive they are."""
    pruned = soften(build(family, pruner), 0.05)
    inputs = random_inputs(pruned.model, LENGTHS)

    def found(faint):
        pruned.soft = Soft(pruned.soft.temperature, faint)
        pruned.zero_grad()
        output = pruned(**inputs)
        ratio = output.trace.flops.sum() / output.trace.dense_flops.sum()
        (output.logits.square().sum() + ratio).backward()
        return output.logits.detach(), ratio.detach(), pruned.pruner.table.grad.clone(), output.trace

    *whole, trace = found(0.0)
    alive = torch.stack([step.log_weight_out.exp() for step in trace.steps])
    assert torch.equal(trace.kept, torch.tensor(LENGTHS).expand(4, -1))
    for faint in (1e-4, 1e-2):
        *some, trace = found(faint)
        least, most = (
            torch.tensor([[int((row >= bound).sum()) for row in layer.split(LENGTHS)] for layer in alive])
            for bound in (1.2 * faint, 0.8 * faint)
        )
        assert ((least <= trace.kept) & (trace.kept <= most)).all()
        assert trace.kept.sum() < alive.numel()
        for exact, near in zip(whole, some, strict=True):
            assert 0 < (near - exact).abs().max() < 20 * faint * exact.abs().max()


@pytest.mark.usefixtures("no_grad")
def test_the_papers_gate_does_not_tend_to_the_hard_model():
    """Its known flaw: a zeroed token goes on as key and voter. Noticed here should the forms be mixed up."""
    pruned = build("bert", options=FORMS["paper"])
    inputs, *_ = clear_case(pruned, "bert", "threshold")
    hard = pruned(**inputs).logits
    assert (soften(pruned, 1e-8)(**inputs).logits - hard).abs().max() > 1e-3


@every_family
@pytest.mark.parametrize("form", ["exact", "paper"])
@pytest.mark.usefixtures("no_grad")
def test_gates_are_between_0_and_1_with_a_half_at_the_threshold(family, form):
    """Asked of the pruner alone, at scores from far under to far over its threshold."""
    pruned = soften(build(family, options=FORMS[form]), TEMPERATURE)
    seen = []
    pruned.pruner.register_forward_hook(lambda module, args, decision: seen.append((args, decision)))
    pruned(**random_inputs(pruned.model, LENGTHS))
    assert len(seen) == 4
    for (layer, plan), decision in list(seen):
        assert decision.keep is None
        tokens = layer.packed.tokens
        scores = torch.linspace(-1e4, 1e4, tokens).double()
        scores[tokens // 2] = THRESHOLDS[layer.index]
        gate = pruned.pruner(replace(layer, received=lambda scores=scores: scores), plan).log_gate.exp()
        assert (gate >= 0).all()
        assert (gate <= 1).all()
        assert (gate.diff() >= 0).all()
        assert gate[tokens // 2] == 0.5
        assert decision.log_gate.exp().mean() > 0.1  # on real scores, neither all open nor shut


@every_learner
@pytest.mark.usefixtures("no_grad")
def test_evaluation_is_hard_while_the_soft_stage_lasts(family, pruner):
    pruned = build(family, pruner)
    inputs, *_ = clear_case(pruned, family, pruner)
    hard = pruned(**inputs)
    soften(pruned, TEMPERATURE).eval()
    output = pruned(**inputs)
    assert torch.equal(output.logits, hard.logits)
    assert torch.equal(output.trace.kept, hard.trace.kept)


def objective(logits, flops, dense_flops):
    """Touches every logit and the budget, so that both ways of a gradient are in it."""
    mix = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    return (mix * logits).sum() + 3 * flops.sum() / dense_flops.sum()


@every_family
@forms
def test_gradient_of_the_thresholds(family, form):
    """Autograd = autograd of the reference = central differences."""
    pruned = soften(build(family, options=FORMS[form]), TEMPERATURE)
    inputs = random_inputs(pruned.model, LENGTHS)
    table = pruned.pruner.table

    def product():
        output = pruned(**inputs)
        return objective(output.logits, output.trace.flops, output.trace.dense_flops)

    product().backward()
    gradient = table.grad[0].double()
    assert (gradient.abs() > 1e-4).all()

    thresholds = table.detach()[0].double().requires_grad_()
    reference = masked_reference(pruned.model, inputs, **gating(thresholds, form))
    flops = expected_flops(pruned, inputs, reference.gates)
    objective(reference.logits, flops, reference.dense_flops).backward()
    near = 2e-3 if family.startswith("modernbert") else 1e-6  # table.grad is float32
    torch.testing.assert_close(gradient, thresholds.grad, rtol=near, atol=near)

    step, differences = 2**-9, []  # exact in float32, as the thresholds are
    with torch.no_grad():
        for layer in range(4):
            sides = []
            for sign in (1, -1):
                pruned.pruner.thresholds[layer] += sign * step
                sides.append(product())
                pruned.pruner.thresholds[layer] -= sign * step
            differences.append((sides[0] - sides[1]) / (2 * step))
    near = 1e-2 if family.startswith("modernbert") else 2e-3
    torch.testing.assert_close(gradient, torch.stack(differences), rtol=near, atol=near)


@every_learner
def test_a_threshold_at_zero_and_gates_that_are_shut_have_finite_gradients(family, pruner):
    """log(sigmoid(x)) would give NaN; a clamp at 0 in the forward pass would give 0."""
    for thresholds in ((0.0,) * 4, (50.0,) * 4):
        pruned = soften(build(family, pruner, thresholds=thresholds), 0.01 if thresholds[0] else TEMPERATURE)
        output = pruned(**random_inputs(pruned.model, LENGTHS))
        objective(output.logits, output.trace.flops, output.trace.dense_flops).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in pruned.parameters())
        if not thresholds[0]:
            assert (pruned.pruner.table.grad != 0).all()


@every_learner
def test_no_gradient_reaches_the_pruner_in_the_hard_stage(family, pruner):
    pruned = build(family, pruner).train()
    inputs = random_inputs(pruned.model, LENGTHS)
    output = pruned(**inputs, labels=torch.tensor([0, 1, 2, 0, 1, 2]))
    assert (output.trace.kept[-1] < torch.tensor(LENGTHS)).any()
    output.loss.backward()
    assert all(p.grad is None for p in pruned.pruner.parameters())
    assert not output.trace.flops.requires_grad
    reached = [p for p in pruned.model.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert len(reached) > 0.8 * len(list(pruned.model.parameters()))


def test_some_pruner_learns():
    """The lists above are not empty."""
    assert any(PRUNERS[name].learns for name in PRUNERS)
