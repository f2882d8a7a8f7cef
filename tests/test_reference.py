"""The reference proves itself, against transformers alone.

Two witnesses: the plain transformers model (dense), and ``walk`` below, which runs transformers' own layer
modules over one unpadded text and takes dropped tokens out of it, or hands the gates in from outside.
"""

from itertools import pairwise

import pytest
import torch
from transformers.models.modernbert import modeling_modernbert

from .reference import masked_reference
from .tiny import FAMILIES, random_inputs

LENGTHS = [26, 1, 9, 20, 2]
THRESHOLD = 0.7
ROUNDING = 1e-9

every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(autouse=True)
def no_gradients_one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # these tensors are tiny: on a busy machine threads cost ten times what they save
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def tolerance(name):
    # transformers' ModernBERT rounds q and k to float32 to rotate them, and its eager softmax is float32.
    return {"atol": 2e-5 if name.startswith("modernbert") else ROUNDING, "rtol": 0}


def over_threshold(layer, importance, alive, lengths=None):
    return importance >= THRESHOLD


def soft(temperature):
    return lambda layer, importance, alive: ((importance - THRESHOLD) / temperature).sigmoid()


def rows(inputs):
    """Each text of a batch alone, without its padding."""
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        yield {key: value[row, mask][None] for key, value in inputs.items()}


def walk(model, text, keep=None, gate=None, form=None):
    """Logits, importances and surviving positions of one unpadded text, with transformers' (eager) layers.

    A hard drop is physical. It comes after the whole layer, as in the paper: the same outputs.
    """
    base, config = model.base_model, model.config
    modern = config.model_type == "modernbert"
    if modern:
        h = base.embeddings(text["input_ids"])
    else:
        h = base.embeddings(text["input_ids"], token_type_ids=text.get("token_type_ids"))
        h = base.embeddings_project(h) if hasattr(base, "embeddings_project") else h
    position = torch.arange(h.shape[1])
    weight = torch.ones(1, h.shape[1], dtype=h.dtype)
    importances, survivors = [], []
    for index, layer in enumerate(base.layers if modern else base.encoder.layer):
        mask = weight.log()[:, None, None, :].expand(1, 1, len(position), len(position))
        if modern:
            if layer.attention_type == "sliding_attention":
                far = (position[:, None] - position[None]).abs() > config.sliding_window
                mask = mask.masked_fill(far, -torch.inf)
            tables = base.rotary_emb(h, position[None], layer.attention_type)
            arguments = {"attention_mask": mask, "position_embeddings": tables}
            _, probabilities = layer.attn(layer.attn_norm(h), **arguments)
        else:
            arguments = {"attention_mask": mask}
            _, probabilities = layer.attention.self(h, **arguments)
        a = (weight[:, None, :, None] * probabilities).sum(2).mean(1)
        importances.append(a[0])
        h = layer(h, **arguments)
        if keep is not None:
            stays = keep(index, a, None)[0] | (position == 0)
            h, weight, position = h[:, stays], weight[:, stays], position[stays]
        if gate is not None:
            g = gate(index, a, None).masked_fill(position == 0, 1.0)
            if form == "paper":
                h = h * g[..., None]
            else:
                weight = weight * g
        survivors.append(position)
    if modern:
        h = base.final_norm(h)
        mean = (h * weight[..., None]).sum(1) / weight.sum()
        pooled = h[:, 0] if config.classifier_pooling == "cls" else mean
        return model.classifier(model.head(pooled)), importances, survivors
    head_input = base.pooler(h) if config.model_type == "bert" else h
    return model.classifier(head_input), importances, survivors


@every_family
@pytest.mark.parametrize("padding", [0, 3])
def test_dense_equals_transformers(name, padding):
    model = FAMILIES[name]()
    inputs = random_inputs(model, LENGTHS, extra_padding=padding)
    reference = masked_reference(model, inputs)
    torch.testing.assert_close(reference.logits, model(**inputs).logits, **tolerance(name))
    assert torch.equal(reference.flops, reference.dense_flops)
    assert reference.gates == []


@pytest.mark.parametrize("name", ["modernbert", "modernbert-mean"])
def test_dense_modernbert_without_the_float32_rotation(name, monkeypatch):
    """With the one rounding of transformers taken away, equality is as tight as for BERT."""

    def rotate(q, k, cos, sin, unsqueeze_dim):
        half = modeling_modernbert.rotate_half
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return q * cos + half(q) * sin, k * cos + half(k) * sin

    monkeypatch.setattr(modeling_modernbert, "apply_rotary_pos_emb", rotate)
    model = FAMILIES[name]()
    inputs = random_inputs(model, LENGTHS)
    logits = masked_reference(model, inputs).logits
    torch.testing.assert_close(logits, model(**inputs).logits, atol=ROUNDING, rtol=0)


@every_family
@pytest.mark.parametrize("form", [None, "paper", "exact"])
def test_equals_a_walk_through_transformers_layers(name, form):
    model = FAMILIES[name](attn_implementation="eager")
    inputs = random_inputs(model, LENGTHS, seed=1)
    if form is None:
        rule = {"keep": over_threshold}
        reference = masked_reference(model, inputs, over_threshold)
        assert 0.1 < reference.kept[-1].sum() / sum(LENGTHS) < 0.7
    else:
        rule = {"gate": soft(0.3), "form": form}
        reference = masked_reference(model, inputs, gate_rule=soft(0.3), gate_form=form)
        assert torch.equal(reference.flops, reference.dense_flops)
    for row, text in enumerate(rows(inputs)):
        logits, importances, survivors = walk(model, text, **rule)
        torch.testing.assert_close(reference.logits[row], logits[0], **tolerance(name))
        entered = torch.arange(LENGTHS[row])
        for layer, (importance, survivor) in enumerate(zip(importances, survivors, strict=True)):
            wanted = torch.zeros_like(reference.importance[layer][row])
            wanted[entered] = importance
            torch.testing.assert_close(reference.importance[layer][row], wanted, **tolerance(name))
            assert reference.alive[layer][row].nonzero()[:, 0].tolist() == survivor.tolist()
            entered = survivor


@every_family
@pytest.mark.parametrize(
    "mode",
    [
        {},
        {"keep_rule": over_threshold, "prefix": 2},
        {"gate_rule": soft(0.3), "gate_form": "paper"},
        {"gate_rule": soft(0.3), "gate_form": "exact"},
    ],
    ids=["dense", "hard", "paper", "exact"],
)
def test_a_row_depends_on_neither_batch_nor_padding(name, mode):
    model = FAMILIES[name]()
    right = masked_reference(model, random_inputs(model, LENGTHS, extra_padding=2), **mode)
    inputs = random_inputs(model, LENGTHS, padding_side="left", extra_padding=5)
    left = masked_reference(model, inputs, **mode)
    for row, text in enumerate(rows(inputs)):
        alone = masked_reference(model, text, **mode)
        n = LENGTHS[row]
        for batch, columns in ((right, slice(0, n)), (left, slice(-n, None))):
            torch.testing.assert_close(batch.logits[row], alone.logits[0], atol=ROUNDING, rtol=0)
            assert torch.equal(batch.kept[:, row], alone.kept[:, 0])
            assert batch.flops[row] == alone.flops[0]
            for layer, importance in enumerate(alone.importance):
                there = batch.importance[layer][row, columns]
                torch.testing.assert_close(there, importance[0], atol=ROUNDING, rtol=0)
                assert torch.equal(batch.alive[layer][row, columns], alone.alive[layer][0])


@every_family
def test_importance_is_mean_one_and_not_uniform(name):
    model = FAMILIES[name]()
    inputs = random_inputs(model, LENGTHS, seed=2)
    for rule in (None, over_threshold):
        reference = masked_reference(model, inputs, rule)
        entered = inputs["attention_mask"].bool()
        for importance, alive in zip(reference.importance, reference.alive, strict=True):
            mean = importance.sum(1) / entered.sum(1)
            torch.testing.assert_close(mean, torch.ones_like(mean), atol=ROUNDING, rtol=0)
            assert (importance[~entered] == 0).all()
            assert importance[0, entered[0]].std() > 0.1
            assert (alive <= entered).all()
            assert alive.any(1).all()
            entered = alive


@every_family
def test_exact_gates_of_zero_and_one_are_the_hard_model(name):
    model = FAMILIES[name]()
    inputs = random_inputs(model, LENGTHS, seed=3)
    hard = masked_reference(model, inputs, over_threshold)
    step = masked_reference(model, inputs, gate_rule=lambda *given: over_threshold(*given).double())
    torch.testing.assert_close(step.logits, hard.logits, atol=ROUNDING, rtol=0)
    cold, warm = [masked_reference(model, inputs, gate_rule=soft(t)).logits for t in (1e-6, 1.0)]
    torch.testing.assert_close(cold, hard.logits, atol=ROUNDING, rtol=0)
    assert (warm - hard.logits).abs().max() > 1e-3
    paper = masked_reference(model, inputs, gate_rule=soft(1e-6), gate_form="paper")
    assert (paper.logits - hard.logits).abs().max() > 1e-3  # the flaw of the paper's form


@every_family
def test_nothing_passes_the_thresholds(name):
    model = FAMILIES[name]()
    inputs = random_inputs(model, LENGTHS)
    reference = masked_reference(model, inputs, lambda layer, importance, *rest: importance > 1e9, prefix=2)
    assert reference.kept.tolist() == [[min(n, 2) for n in LENGTHS]] * 4
    # The free lunch: after the last attention a [CLS] head needs nobody else.
    last = masked_reference(model, inputs, lambda layer, *rest: torch.full((), layer < 3))
    if name != "modernbert-mean":
        torch.testing.assert_close(last.logits, masked_reference(model, inputs).logits, atol=ROUNDING, rtol=0)


@every_family
def test_flops_against_closed_forms(name):
    model = FAMILIES[name]()
    reference = masked_reference(model, random_inputs(model, LENGTHS), over_threshold)
    d, f, w = 32, 64, 4
    modern = name.startswith("modernbert")
    for row, n in enumerate(LENGTHS):
        full = 2 * (4 * d * d * n + 2 * d * n * n + (3 if modern else 2) * d * f * n)
        saved = n * n - (n * (2 * w + 1) - w * (w + 1)) if n > w else 0  # pairs a window leaves out
        assert reference.dense_flops[row] == 4 * full - (2 * 2 * 2 * d * saved if modern else 0)
        if not modern:
            kept = [n, *reference.kept[:, row].tolist()]
            layers = [
                3 * d * d * a + d * a * a + d * a * b + d * d * b + 2 * d * f * b for a, b in pairwise(kept)
            ]
            assert reference.flops[row] == 2 * sum(layers)


@every_family
def test_every_parameter_matters_and_gradients_agree(name):
    """The factories hide nothing: each tensor moves the logits, by as much as transformers says."""
    model = FAMILIES[name]()
    inputs = random_inputs(model, LENGTHS)
    names, parameters = zip(*model.named_parameters(), strict=True)
    with torch.enable_grad():
        mine = torch.autograd.grad(masked_reference(model, inputs).logits.square().sum(), parameters)
        theirs = torch.autograd.grad(model(**inputs).logits.square().sum(), parameters)
    for parameter, a, b in zip(names, mine, theirs, strict=True):
        close = 1e-4 if name.startswith("modernbert") else ROUNDING
        assert (a - b).norm() <= close * (1 + b.norm()), parameter
        if not parameter.endswith("key.bias"):  # shifts all scores of a query alike: softmax ignores it
            assert b.norm() > 1e-4, parameter


def test_a_float32_model_is_run_in_float64():
    inputs = random_inputs(FAMILIES["bert"](), LENGTHS)
    single = masked_reference(FAMILIES["bert"](dtype=torch.float32), inputs, over_threshold)
    double = masked_reference(FAMILIES["bert"](), inputs, over_threshold)
    assert torch.equal(single.logits, double.logits)


@every_family
def test_inputs_hold_the_pad_id_inside_texts(name):
    model = FAMILIES[name]()
    right, left = [
        random_inputs(model, [60, 1, 30], padding_side=side, extra_padding=4) for side in ("right", "left")
    ]
    for text, moved in zip(rows(right), rows(left), strict=True):
        assert all(torch.equal(values, moved[key]) for key, values in text.items())
    pads = right["input_ids"][0, 1:59] == model.config.pad_token_id
    assert 3 <= pads.sum() <= 20
    if "token_type_ids" in right:
        assert right["token_type_ids"].unique().tolist() == [0, 1]
