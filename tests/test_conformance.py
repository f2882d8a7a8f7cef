"""What must always hold, over every family and every pruner: outputs, batches, drops and nesting."""

from itertools import pairwise

import pytest
import torch

from thresher import UserError, prune
from thresher.attention import ROUTES
from thresher.pruners import PRUNERS

from .cases import (
    LENGTHS,
    RULES,
    UNRULED,
    build,
    clear_case,
    config,
    drops,
    every_adjustable,
    every_family,
    every_pair,
    positions,
    rows,
    tolerance,
)
from .reference import masked_reference
from .tiny import DEVICE, FAMILIES, POSITIONS, random_inputs

pytestmark = pytest.mark.usefixtures("no_grad")


def drop_nothing(pruned):
    if pruned.pruner.adjustable:
        pruned.pruner.rescale(0)
    return pruned


def drop_all(pruned):
    pruned.pruner.rescale(1e6)
    return pruned


def spy(pruned):
    """A dict that the next forward fills: layer -> importance and packed batch, for the pruner to see."""
    seen = {}

    def note(pruner, arguments):
        layer = arguments[0]
        seen[layer.index] = layer.importance, layer.packed

    pruned.pruner.register_forward_pre_hook(note)
    return seen


def kept_shares(reference):
    return (reference.kept.sum(1) / sum(LENGTHS)).tolist()


def test_every_pruner_has_its_rule_written_a_second_time():
    """Or a reason why it has none."""
    assert set(PRUNERS) == set(RULES) | set(UNRULED)
    assert all(UNRULED.values())


# 1. Nothing dropped = the transformers model ---------------------------------------------------------------


@every_pair
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_dropped_is_the_transformers_model(family, pruner, dtype):
    pruned = drop_nothing(build(family, pruner, dtype=dtype))
    inputs = random_inputs(pruned.model, LENGTHS, extra_padding=3)
    expected = pruned.model(**inputs).logits
    atol = 1e-5 if dtype == torch.float32 else 1e-6 if family.startswith("modernbert") else 1e-9
    output = pruned(**inputs)
    torch.testing.assert_close(output.logits, expected, atol=atol, rtol=0)
    assert torch.equal(output.trace.kept, torch.tensor(LENGTHS, device=DEVICE).expand(4, -1))
    assert torch.equal(output.trace.flops, output.trace.dense_flops)
    with build(family, pruner, dtype=dtype).dense() as dense:
        torch.testing.assert_close(dense(**inputs).logits, expected, atol=atol, rtol=0)
    left = random_inputs(pruned.model, LENGTHS, padding_side="left", extra_padding=3)
    alone = torch.cat([pruned.model(**text).logits for text in rows(left)])
    torch.testing.assert_close(pruned(**left).logits, alone, atol=atol, rtol=0)


@every_family
@pytest.mark.parametrize("mask", [None, "ones", "right", "left"])
def test_padding_ids_are_read_as_transformers_reads_them(family, mask):
    """At any place of a text, [CLS]'s too; and a mask may hide other ids than padding."""
    pruned = drop_nothing(build(family))
    ids = random_inputs(pruned.model, [POSITIONS] * 8, seed=6)["input_ids"]
    pad = pruned.model.config.pad_token_id
    ids[1, 0] = ids[2, -1] = ids[3, 5:9] = ids[4] = ids[5, :3] = ids[6, -3:] = pad
    ids[7] = pad + 1
    lengths = [POSITIONS] * 8 if mask in (None, "ones") else [POSITIONS, 1, 30, 7, 9, 4, 50, 1]
    lengths = torch.tensor(lengths, device=DEVICE)
    columns = torch.arange(POSITIONS, device=DEVICE)
    real = columns < lengths[:, None] if mask != "left" else columns >= POSITIONS - lengths[:, None]
    given = {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": real.long()}
    output = pruned(**given)
    if mask == "left":  # where transformers takes a masked column for [CLS]
        expected = [pruned.model(ids[row, real[row]][None]).logits for row in range(8)]
        expected = torch.cat(expected)
    else:
        expected = pruned.model(**given).logits
    torch.testing.assert_close(output.logits, expected, **tolerance(family))
    assert [output.trace.positions(row)[-1] for row in range(8)] == [list(range(n)) for n in lengths]


@every_family
def test_no_mask_means_that_every_token_is_real(family):
    pruned = build(family)
    (text,) = rows(random_inputs(pruned.model, [12]))
    expected = pruned(**text).logits
    del text["attention_mask"]
    assert torch.equal(pruned(**text).logits, expected)


# 2. A row does not depend on its batch ---------------------------------------------------------------------


@every_pair
def test_batch_mates_order_and_padding_change_nothing(family, pruner):
    pruned = build(family, pruner)
    inputs, _, seed = clear_case(pruned, family, pruner)
    whole = pruned(**inputs)
    atol = 1e-6 if family.startswith("modernbert") else 1e-9  # its rotation in float32 amplifies rounding

    def same(other, inside, outside):
        torch.testing.assert_close(other.logits[inside], whole.logits[outside], atol=atol, rtol=0)
        assert torch.equal(other.trace.kept[:, inside], whole.trace.kept[:, outside])
        assert other.trace.positions(inside) == whole.trace.positions(outside)
        assert torch.equal(other.trace.flops[inside], whole.trace.flops[outside])

    for row, text in enumerate(rows(inputs)):
        same(pruned(**text), 0, row)
    order = [3, 5, 0, 4, 1]
    shuffled = pruned(**{name: values[order] for name, values in inputs.items()})
    for place, row in enumerate(order):
        same(shuffled, place, row)
    for padding in (
        {"extra_padding": 9},
        {"padding_side": "left"},
        {"padding_side": "left", "extra_padding": 2},
    ):
        other = pruned(**random_inputs(pruned.model, LENGTHS, seed, **padding))
        for row in range(len(LENGTHS)):
            same(other, row, row)


# 3. Dropping = masking -------------------------------------------------------------------------------------


@every_pair
@pytest.mark.parametrize(("prefix", "side"), [(1, "right"), (2, "left")])
def test_dropping_equals_the_masked_reference(family, pruner, prefix, side):
    pruned = build(family, pruner, prefix=prefix)
    inputs, reference, _ = clear_case(pruned, family, pruner, prefix, padding_side=side, extra_padding=2)
    output = pruned(**inputs)
    torch.testing.assert_close(output.logits, reference.logits, **tolerance(family))
    assert torch.equal(output.trace.kept, reference.kept)
    for row in range(len(LENGTHS)):
        assert output.trace.positions(row) == [positions(alive, inputs, row) for alive in reference.alive]

    shares = kept_shares(reference)
    if not drops(pruner):
        assert shares == [1, 1, 1, 1]
    else:  # so that the test says something: the drops are spread over the layers
        assert 0.15 < shares[-1] < 0.8
        assert sum(before - after > 0.02 for before, after in pairwise([1, *shares])) >= 2


@every_pair
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_suffix_stays(family, pruner, side):
    pruned = build(family, pruner, suffix=2)
    inputs, reference, _ = clear_case(pruned, family, pruner, suffix=2, padding_side=side, extra_padding=1)
    output = pruned(**inputs)
    torch.testing.assert_close(output.logits, reference.logits, **tolerance(family))
    assert torch.equal(output.trace.kept, reference.kept)
    for row, length in enumerate(LENGTHS):
        assert {0, length - 1, max(0, length - 2)} <= set(output.trace.positions(row)[-1])


@every_pair
def test_importance_equals_the_reference_with_mean_one(family, pruner):
    pruned = build(family, pruner)
    inputs, reference, _ = clear_case(pruned, family, pruner)
    seen = spy(pruned)
    pruned(**inputs)
    assert len(seen) == 4
    entering = [inputs["attention_mask"].bool(), *reference.alive]
    for layer, (importance, packed) in seen.items():
        assert importance.dtype == torch.float64
        torch.testing.assert_close(
            importance, reference.importance[layer][entering[layer]], **tolerance(family)
        )
        ones = torch.ones(len(LENGTHS), 1, dtype=torch.float64, device=DEVICE)
        torch.testing.assert_close(packed.mean(importance[:, None]), ones)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_importance_is_computed_only_where_it_decides(pruner, dense, monkeypatch):
    """And so costs nothing in layers that drop nothing."""
    asked = []

    def receive(attended):
        asked.append(attended)
        return torch.ones(attended.asked.packed.tokens, device=DEVICE)

    for route in ROUTES:
        monkeypatch.setattr(route, "_receive", receive)
    pruned = build("bert", pruner)
    if pruned.pruner.ladder:
        pruned.pruner.thresholds[1:3] = 0.0
    trace = pruned(**random_inputs(pruned.model, LENGTHS), dense=dense).trace
    decided = sum(step.keep is not None for step in trace.steps)
    assert (decided > 0) == (drops(pruner) and not dense)
    assert len(asked) in (0, decided)  # or never, by a pruner that does not read it


@every_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_importance_is_float32_under_autocast(family, dtype):
    pruned = build(family, dtype=dtype)
    seen = spy(pruned)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        logits = pruned(**random_inputs(pruned.model, LENGTHS)).logits
    assert logits.isfinite().all()
    assert len(seen) == 4
    for importance, packed in seen.values():
        assert importance.dtype == torch.float32
        ones = torch.ones(len(LENGTHS), 1, device=DEVICE)
        torch.testing.assert_close(packed.mean(importance[:, None]), ones, atol=1e-5, rtol=0)


# 4. Nested, and the prefix survives ------------------------------------------------------------------------


@every_pair
@pytest.mark.parametrize("prefix", [1, 2])
def test_alive_sets_are_nested_and_hold_the_prefix(family, pruner, prefix):
    pruned = build(family, pruner, prefix=prefix)
    trace = pruned(**random_inputs(pruned.model, LENGTHS, seed=5)).trace
    for row, length in enumerate(LENGTHS):
        alive = [list(range(length)), *trace.positions(row)]
        assert all(set(after) <= set(before) for before, after in pairwise(alive))
        assert all(layer == sorted(layer) for layer in alive)
        assert set(range(min(prefix, length))) <= set(alive[-1])


@every_adjustable
@pytest.mark.parametrize("prefix", [1, 2])
def test_only_the_prefix_is_left_when_every_score_is_too_low(family, pruner, prefix):
    pruned = drop_all(build(family, pruner, prefix=prefix))
    inputs = random_inputs(pruned.model, LENGTHS)
    output = pruned(**inputs)
    first = next(layer for layer, kept in enumerate(output.trace.kept) if kept.tolist() != LENGTHS)
    assert torch.equal(
        output.trace.kept[first:],
        torch.tensor(LENGTHS, device=DEVICE).clamp(max=prefix).expand(4 - first, -1),
    )
    none = lambda layer, importance, alive, lengths: alive if layer < first else alive & False  # noqa: E731
    reference = masked_reference(pruned.model, inputs, none, prefix=prefix)
    torch.testing.assert_close(output.logits, reference.logits, **tolerance(family))


@every_pair
def test_one_token_sequences(family, pruner):
    pruned = build(family, pruner)
    for lengths in ([1], [1, 1, 1]):
        inputs = random_inputs(pruned.model, lengths)
        output = pruned(**inputs)
        torch.testing.assert_close(output.logits, pruned.model(**inputs).logits, atol=1e-6, rtol=0)
        assert output.trace.kept.tolist() == [[1] * len(lengths)] * 4
        assert torch.equal(output.trace.flops, output.trace.dense_flops)


@every_pair
def test_prefix_only_at_end(family, pruner):
    if family == "modernbert-mean":
        with pytest.raises(UserError, match="pools all tokens"):
            prune(FAMILIES[family](), config(pruner, prefix_only_at_end=True))
        return
    without, pruned = build(family, pruner), build(family, pruner, prefix_only_at_end=True)
    inputs, _, _ = clear_case(without, family, pruner)
    before, after = without(**inputs), pruned(**inputs)
    torch.testing.assert_close(after.logits, before.logits, atol=1e-6, rtol=0)
    assert torch.equal(after.trace.kept[:-1], before.trace.kept[:-1])
    assert (after.trace.kept[-1] == 1).all()


@pytest.mark.parametrize("pruner", PRUNERS)
def test_configs_of_all_pruners_survive_json(pruner):
    before = config(pruner, prefix=3)
    assert type(before).from_dict(before.to_dict()) == before
