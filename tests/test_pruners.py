"""What is particular to one pruner: units, shares, options."""

from copy import deepcopy
from math import ceil

import pytest
import torch

from thresher import PruningConfig, UserError
from thresher.packed import PackedBatch
from thresher.plan import Plan
from thresher.pruners import PRUNERS, LayerView, make_pruner
from thresher.pruners.random import Random
from thresher.pruners.threshold import Threshold
from thresher.pruners.topk import TopK

from .cases import LENGTHS, build, rows, soften
from .tiny import random_inputs

pytestmark = pytest.mark.usefixtures("no_grad")


def view(index, importance, packed, hidden=None):
    """What a pruner sees, without keys."""
    return LayerView(index, hidden, None, packed, lambda: importance)


def full(lengths):
    (packed,) = PackedBatch.from_padded(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])
    return packed


def test_a_score_at_the_threshold_stays():
    pruner = Threshold(1, 8, score="attention")
    pruner.thresholds[0] = 0.5
    scores = torch.tensor([0.5, 0.5 - 2**-20, 0.5 + 2**-20])
    assert pruner(view(0, scores, full([3])), Plan()).keep.tolist() == [True, False, True]


def test_paper_normalisation_divides_by_the_alive_tokens():
    """In fair shares of a text of 128 tokens: a text of 64 gets twice the score for the same importance."""
    pruner = Threshold(1, 8, score="attention", normalization="paper")
    pruner.thresholds[0] = 1.0
    packed = full([64, 128])
    at = 0.75 * torch.ones(packed.tokens)
    assert pruner(view(0, at, packed), Plan()).keep.tolist() == [True] * 64 + [False] * 128
    half = packed.keep(packed.positions % 2 == 0)  # 32 and 64 alive: it goes by those
    assert pruner(view(0, at[: half.tokens], half), Plan()).keep.all()
    pruned = build("bert", options={"normalization": "paper"}, thresholds=(5.0,) * 4)
    inputs = random_inputs(pruned.model, LENGTHS)
    seen = []
    pruned.pruner.register_forward_hook(lambda module, args, decision: seen.append((args, decision)))
    for row, text in enumerate(rows(inputs)):
        assert torch.allclose(pruned(**text).logits[0], pruned(**inputs).logits[row], atol=1e-9)
    for (layer, _), decision in seen:
        shares = layer.importance / layer.packed.lengths[layer.packed.sequence] * 128
        assert torch.equal(decision.keep, shares >= 5.0)


def test_a_ladder_holds_thresholds_for_each_of_its_budgets():
    pruned = build("bert", options={"budgets": [0.5, 0.7, 0.3]})
    inputs = random_inputs(pruned.model, LENGTHS)
    before = pruned(**inputs).logits
    assert pruned.pruner.table.shape == (3, 4)
    pruned.pruner.table[2] = 1e9
    assert torch.equal(pruned(**inputs).logits, before)
    pruned.set_budget(0.3)
    assert (pruned(**inputs).trace.kept == 1).all()
    pruned.set_budget(0.7)
    assert torch.allclose(pruned(**inputs).logits, pruned.model(**inputs).logits, atol=1e-9)
    with pytest.raises(UserError, match=r"holds no budget 0\.4; it holds 0\.3, 0\.5, 0\.7\. Prune it"):
        pruned.set_budget(0.4)
    with pytest.raises(UserError, match=r"holds no budget 0\.5; it holds none\. Prune it"):
        build("bert", "topk").set_budget(0.5)


@pytest.mark.parametrize("score", ["both", "hidden"])
def test_learned_scores(score):
    """Scores by hand; at first as if nothing was learned; nothing is dropped at thresholds of 0."""
    pruned = build("bert", options={"score": score})
    pruner, inputs = pruned.pruner, random_inputs(pruned.model, LENGTHS)
    generator = torch.Generator().manual_seed(0)
    importance = torch.rand(300, dtype=torch.float64, generator=generator)
    importance /= importance.mean()
    hidden = torch.randn(300, pruner.dim, dtype=torch.float64, generator=generator) + 0.1
    first = importance if score == "both" else torch.ones(300)
    assert torch.equal(pruner(view(0, importance, full([300]), hidden), Plan()).keep, first >= 0.5)
    pruner.weight.normal_(std=0.3, generator=generator)
    expected = (hidden @ pruner.weight[1].double()).exp() * (importance if score == "both" else 1.0)
    expected /= expected.mean()  # in fair shares
    keep = pruner(view(1, importance, full([300]), hidden), Plan()).keep
    assert 50 < keep.sum() < 270
    assert torch.equal(keep, expected >= 0.625)
    for row, text in enumerate(rows(inputs)):
        assert torch.allclose(pruned(**text).logits[0], pruned(**inputs).logits[row], atol=1e-9)
    assert 0.1 < float(pruned(**inputs).trace.flops.sum() / pruned(**inputs).trace.dense_flops.sum()) < 0.95
    pruner.thresholds.zero_()
    assert torch.allclose(pruned(**inputs).logits, pruned.model(**inputs).logits, atol=1e-9)


@pytest.mark.parametrize("score", ["both", "hidden"])
def test_learned_scores_get_gradients_through_the_gates(score):
    pruned = soften(build("bert", options={"score": score}), 0.25)
    with torch.enable_grad():
        trace = pruned(**random_inputs(pruned.model, LENGTHS)).trace
        (trace.flops.sum() / trace.dense_flops.sum()).backward()
    assert (pruned.pruner.weight.grad.abs().amax(1) > 1e-6).all()
    assert [id(p) for p in pruned.pruner.score_parameters()] == [id(pruned.pruner.weight)]


@pytest.mark.parametrize(("length", "share", "kept"), [(10, 0.7, 7), (10, 0.71, 8), (7, 0.5, 4), (1, 0.1, 1)])
def test_topk_rounds_up_but_not_for_float_dust(length, share, kept):
    pruner = TopK(2, 8, dense_layers=1, slope=1 - share)
    scores = torch.rand(length)
    keep = pruner(view(1, scores, full([length])), Plan()).keep
    assert keep.sum() == kept
    assert set(keep.nonzero().flatten().tolist()) == set(scores.topk(kept).indices.tolist())


def test_topk_defaults():
    """max(3, 15 %) dense layers, then down to half in a straight line; ties go to the earlier token."""
    assert [TopK(n, 8).dense_layers for n in (4, 12, 24)] == [3, 3, 4]
    pruner = TopK(12, 8)
    kept = [int(pruner(view(n, torch.ones(90), full([90])), Plan()).keep.sum()) for n in range(3, 12)]
    assert kept == [85, 80, 75, 70, 65, 60, 55, 50, 45]
    assert pruner(view(11, torch.ones(90), full([90])), Plan()).keep.tolist() == [True] * 45 + [False] * 45
    with pytest.raises(UserError, match="first 3 of 3 layers"):
        TopK(3, 8)


def test_random_draws_as_many_as_topk_from_everywhere_and_asks_nobody():
    lengths = list(range(60, 100))
    packed, pruner = full(lengths), Random(2, 8, dense_layers=1, slope=0.5)
    keep = pruner(view(1, None, packed), Plan()).keep
    assert torch.equal(keep, pruner(view(1, None, packed), Plan()).keep)
    rows = keep.split(lengths)
    assert [int(row.sum()) for row in rows] == [ceil(n / 2) for n in lengths]
    share = torch.stack([row[:60].double() for row in rows]).mean(0)
    assert 0.4 < share.mean() < 0.6
    assert share.max() < 0.9  # no place is kept or dropped by rule
    assert share.min() > 0.1


@pytest.mark.parametrize("name", [name for name in PRUNERS if PRUNERS[name].adjustable])
def test_rescale_goes_from_nothing_to_all(name):
    pruned = build("bert", name)
    inputs = random_inputs(pruned.model, LENGTHS)
    shares = []
    for factor in (0.5, 2, 1.3, 1.3, 1e3, 0):
        pruned.pruner.rescale(factor)
        shares.append(float(pruned(**inputs).trace.flops.sum() / pruned(**inputs).trace.dense_flops.sum()))
    assert shares[-1] == 1
    assert shares[:-1] == sorted(shares[:-1], reverse=True)
    assert len(set(shares)) == 6


@pytest.mark.parametrize("name", [name for name in PRUNERS if not PRUNERS[name].adjustable])
def test_what_is_not_adjustable_says_so(name):
    with pytest.raises(UserError, match="always prunes the same"):
        build("bert", name).pruner.rescale(2.0)


@pytest.mark.parametrize(("score", "least"), [("attention", 0.0), ("both", 0.02)])
def test_clamp_brings_the_thresholds_of_all_rungs_back(score, least):
    """Adam moves rungs that had no gradient, too."""
    pruner = Threshold(3, 8, score=score, budgets=[0.5, 0.3])
    pruner.table.copy_(torch.tensor([[-0.5, 0.0, 0.5], [-0.5, 1.0, 0.0]]))
    pruner.clamp()
    expected = torch.tensor([[least, least, 0.5], [least, 1.0, least]])
    assert torch.equal(pruner.table, expected)


def test_thresholds_by_hand_rise_with_the_layer():
    pruner = Threshold(4, 8, score="attention", learned=False)
    assert not pruner.learns
    assert pruner.thresholds.tolist() == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("threshold", "learned", "False"),  # which is true
        ("threshold", "gate", 1),
        ("topk", "dense_layers", "two"),
        ("topk", "dense_layers", 1.5),
        ("random", "slope", True),
    ],
)
def test_an_option_of_another_type_is_refused(name, option, value):
    with pytest.raises(UserError, match=f"'{option}' of pruner '{name}' cannot be {value!r}"):
        make_pruner(PruningConfig(name, {option: value}), 4, 8)


def test_numbers_without_a_point_are_numbers():
    pruner = make_pruner(PruningConfig("topk", {"dense_layers": 0, "slope": 1}), 4, 8)
    pruner.rescale(0.1)
    assert float(pruner.slope) == pytest.approx(0.1)


@pytest.mark.parametrize("name", PRUNERS)
def test_a_copy_is_independent(name):
    pruned = build("bert", name)
    inputs = random_inputs(pruned.model, LENGTHS)
    before = pruned(**inputs).logits
    other = deepcopy(pruned)
    assert torch.equal(other(**inputs).logits, before)
    for tensor in other.state_dict().values():
        tensor.zero_()
    assert (other(**inputs).logits == 0).all()
    assert torch.equal(pruned(**inputs).logits, before)
