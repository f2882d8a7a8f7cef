"""The routes in torch and weight_in_reach() against loops over one sequence at a time, in float64."""

from itertools import chain
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thresher import native
from thresher.attention import (
    Asked,
    Entries,
    TableBias,
    attend,
    buckets,
    flex,
    matrix,
    weight_in_reach,
)
from thresher.attention.flex import Flex
from thresher.attention.logsumexp import LogSumExp
from thresher.attention.matrix import Matrix
from thresher.attention.native import Native
from thresher.memory import peak_above
from thresher.packed import PackedBatch

# One bucket for all, the product's own choice, and a bucket for every sequence.
PLANS = {
    "one": {"CELLS": 1 << 40, "SLACK": 1000.0, "SPARE": 1000},
    "own": {},
    "cells": {"CELLS": 60, "SLACK": 2.0, "SPARE": 2},
    "each": {"CELLS": 1, "SLACK": 1.0, "SPARE": 0},
}
ROUTES = {"matrix": Matrix, "logsumexp": LogSumExp, "flex": Flex}  # flex as on a GPU, but not compiled
HEADS, DIM = 2, 3
SCALE = 0.9


def ragged(lengths, gaps=None, gone=0.3):
    """A packed batch; with `gaps` (a seed) a share of the tokens is gone already, never the first."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    (packed,) = PackedBatch.from_padded(mask)
    if gaps is None:
        return packed
    draw = torch.rand(packed.tokens, generator=torch.Generator().manual_seed(gaps))
    return packed.keep((draw > gone) | (packed.positions == 0))


def tensors(packed, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, packed.tokens, HEADS, DIM)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))


def entry(differences, numbers):
    """Which of so many numbers a difference of positions has: neighbours have others, far ones some again."""
    return (7 * differences + differences // 5).remainder(numbers)


def table_of(heads, numbers, seed=0):
    """Numbers [heads, numbers] in float64; None for no numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(heads, numbers, generator=generator).double() if numbers else None


def biased(packed, table):
    """The bias by a table, or None."""
    rule = Entries(lambda differences: entry(differences, table.shape[1]))
    return None if table is None else TableBias(table, rule.reaching(packed))


def by_hand(query, key, value, packed, window, log_weight, factors=None, table=None):
    """Context of every token [tokens, heads * dim] and importance [tokens], a head at a time. In the context,
    probabilities are multiplied by the `factors` of their sequence and head. A `table` has what `entry` adds
    to the scores."""
    query, key, value = query.double(), key.double(), value.double()
    log_weight = torch.zeros(packed.tokens) if log_weight is None else log_weight
    log_weight = log_weight.double()
    contexts, importances = [], []
    ends = zip(packed.cu_seqlens[:-1].tolist(), packed.cu_seqlens[1:].tolist(), strict=True)
    for sequence, (start, end) in enumerate(ends):
        at = packed.positions[start:end]
        far = torch.zeros(end - start, end - start, dtype=torch.bool)
        if window is not None:
            far = (at[:, None] - at[None, :]).abs() > window
        heads, importance = [], torch.zeros(end - start, dtype=torch.float64)
        for h in range(query.shape[1]):
            scores = SCALE * query[start:end, h] @ key[start:end, h].T + log_weight[None, start:end]
            if table is not None:
                scores = scores + table[h].double()[entry(at[None, :] - at[:, None], table.shape[1])]
            weights = scores.masked_fill(far, -torch.inf).softmax(1)
            importance += log_weight[start:end].exp() @ weights / query.shape[1]
            left = weights if factors is None else weights * factors[sequence][h]
            heads.append(left @ value[start:end, h])
        contexts.append(torch.cat(heads, 1))
        importances.append(importance)
    return torch.cat(contexts), torch.cat(importances)


def run(packed, qkv, window=None, log_weight=None, keep=None, importance=True, route="matrix", table=None):
    """Context, and the importance, where it is asked for."""
    bias = biased(packed, table)
    attended = ROUTES[route](Asked(*qkv, packed, SCALE, window, log_weight, bias=bias))
    seen = attended.importance() if importance else None
    return attended.context(None if keep is None else keep.nonzero().squeeze(1)), seen


lengths_of_batches = st.lists(st.integers(1, 14), min_size=1, max_size=6)
windows = st.sampled_from([None, 0, 1, 3, 50])
seeds = st.integers(0, 1000)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("route", ROUTES)
@given(
    lengths_of_batches, windows, seeds, st.sampled_from(list(PLANS)), st.booleans(), st.booleans(), st.data()
)
def test_attend_equals_brute_force(route, lengths, window, seed, plan, gaps, weighed, data):
    packed = ragged(lengths, seed if gaps else None)
    qkv = tensors(packed, seed)
    generator = torch.Generator().manual_seed(seed)
    weighed &= route == "matrix"
    log_weight = -3 * torch.rand(packed.tokens, generator=generator).double() if weighed else None
    share = data.draw(st.sampled_from([None, 0.0, 0.2, 0.5, 0.9, 1.0]))
    keep = None
    if share is not None:
        keep = torch.rand(packed.tokens, generator=generator) < share
        keep[packed.cu_seqlens[:-1].long()] = True
    numbers = data.draw(st.sampled_from([0, 1, 5, 40])) if route == "matrix" else 0
    how = {"route": route, "table": table_of(HEADS, numbers, seed)}
    expected, importance = by_hand(*qkv, packed, window, log_weight, table=how["table"])
    with patch.dict(vars(buckets), PLANS[plan]):
        context, seen = run(packed, qkv, window, log_weight, keep, **how)
        unseen, _ = run(packed, qkv, window, log_weight, keep, importance=False, **how)
        whole, _ = run(packed, qkv, window, log_weight, importance=False, **how)
    close = {"atol": 1e-12 if route == "matrix" else 1e-11, "rtol": 0}
    torch.testing.assert_close(context, expected if keep is None else expected[keep], **close)
    torch.testing.assert_close(seen, importance, **close)
    torch.testing.assert_close(unseen, context, **close)
    torch.testing.assert_close(whole, expected, **close)
    if not weighed:
        ones = torch.ones(packed.batch, dtype=torch.float64)
        torch.testing.assert_close(packed.mean(seen[:, None])[:, 0], ones, **close)


@given(lengths_of_batches, windows, seeds, st.booleans())
def test_flex_skips_the_blocks_in_which_nothing_is_reached(lengths, window, seed, gaps):
    packed = ragged(lengths, seed if gaps else None)
    at, sequence, size = packed.positions, packed.sequence, -(-packed.tokens // 4) * 4
    reached = sequence[:, None] == sequence
    if window is not None:
        reached &= (at[:, None] - at).abs() <= window
    wanted = torch.zeros(size, size, dtype=torch.bool)
    wanted[: packed.tokens, : packed.tokens] = reached
    with patch.object(flex, "BLOCK", 4):
        blocks = flex._block_mask(packed, window).to_dense()[0, 0].bool()
    assert torch.equal(blocks, wanted.view(size // 4, 4, size // 4, 4).any(3).any(1))


@pytest.mark.parametrize(("plan", "count"), [("one", 1), ("each", 5), ("cells", 3)])
def test_plans_make_the_buckets_they_are_meant_to(plan, count):
    """So that the test above runs one bucket, some and many."""
    with patch.dict(vars(buckets), PLANS[plan]):
        assert len(list(buckets._plan(ragged([14, 9, 4, 4, 1])))) == count


@given(lengths_of_batches, st.sampled_from(list(PLANS)))
def test_buckets_hold_every_sequence_once(lengths, plan):
    with patch.dict(vars(buckets), PLANS[plan]):
        planned = list(buckets._plan(ragged(lengths)))
    rows = [torch.arange(len(lengths))[rows].tolist() for rows, _ in planned]
    assert sorted(chain(*rows)) == list(range(len(lengths)))
    for members, (_, longest) in zip(rows, planned, strict=True):
        assert longest == max(lengths[row] for row in members)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell peak memory")
@pytest.mark.parametrize("route", ["logsumexp", "matrix"])
def test_long_texts_hold_no_square_matrix(route):
    packed = ragged([4096])
    qkv = tensors(packed, dtype=torch.float32)
    peak = peak_above(lambda: run(packed, qkv, route=route))
    assert (peak < 60) == (route == "logsumexp")  # of 4096 x 4096 floats for each head: 128 MB


def test_flex_serves_long_texts_on_a_gpu_alone():
    long = ragged([384, 2])

    def serves(packed, *qkv):
        return Flex.serves(Asked(*qkv, packed, SCALE))

    assert not serves(long, *tensors(long, dtype=torch.float32))  # on a CPU
    on_gpu = [torch.nn.Parameter(torch.empty(386, 2, 16, device="meta")) for _ in range(3)]
    narrow = [x[..., :8] for x in on_gpu]
    with patch.object(torch.Tensor, "device", torch.device("cuda")), patch.object(flex, "has_triton"):
        with torch.no_grad():
            assert serves(long, *on_gpu)
            assert not serves(ragged([383, 2]), *on_gpu)
            assert not serves(long, *narrow)
            with patch.object(flex, "has_triton", return_value=False):
                assert not serves(long, *on_gpu)
        assert not serves(long, *on_gpu)  # gradients are wanted
        assert not serves(long, *tensors(long))  # float64


def test_which_route_is_taken():
    """Native where it can be; long texts by the log-sum-exp, where no gradients are wanted."""
    short, long = ragged([383, 2]), ragged([384, 2])
    single = tensors(long, dtype=torch.float32)

    def taken(packed, qkv, **options):
        return type(attend(*qkv, packed, scale=SCALE, **options))

    if native.library is not None:
        assert taken(long, single) is Native
    assert taken(long, tensors(long)) is LogSumExp
    with patch.object(native, "library", None):
        assert taken(long, single) is LogSumExp
        assert taken(short, tensors(short)) is Matrix
        assert taken(long, single, dropout=0.1) is Matrix
        assert taken(long, single, log_weight=torch.zeros(long.tokens)) is Matrix
        assert taken(long, single, bias=biased(long, table_of(HEADS, 5))) is Matrix
        learning = [x.requires_grad_() for x in single]
        assert taken(long, learning) is Matrix
        with torch.no_grad():
            assert taken(long, learning) is LogSumExp


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("route", ROUTES)
def test_heads_may_share_keys_and_values(route):
    packed = ragged([9, 4])
    query, key, value = tensors(packed)
    few = [x[:, :1] for x in (key, value)]
    expected = run(packed, (query, *(x.expand(-1, HEADS, -1) for x in few)), route=route)
    for found, wanted in zip(run(packed, (query, *few), route=route), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_nothing_is_computed_before_it_is_asked_for():
    packed = ragged([9, 4])
    attended = Matrix(Asked(*tensors(packed), packed, SCALE))
    assert attended.probabilities == []
    assert attended.context().shape == (13, HEADS * DIM)
    assert attended.probabilities == []  # by torch's fused attention, which has none to show
    assert attended.importance() is attended.importance()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_importance_is_float32_whatever_the_inputs_and_autocast(dtype, autocast, route):
    packed = ragged([30, 7, 1, 12])
    qkv = tensors(packed, dtype=dtype)
    expected, importance = by_hand(*qkv, packed, None, None)
    keep = packed.positions < 5
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        context, seen = run(packed, qkv, keep=keep, route=route)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, importance.float(), atol=3e-6, rtol=0)  # bfloat16 moves it by 3e-3
    torch.testing.assert_close(packed.mean(seen[:, None])[:, 0], torch.ones(4), atol=1e-6, rtol=0)
    assert context.dtype == dtype
    rounding = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(context, expected[keep].to(dtype), atol=rounding, rtol=0)


def test_dropout_is_taken_after_importance():
    packed = ragged([9, 4])
    qkv = tensors(packed)
    seen = []
    for dropout in (0.0, 0.5):
        attended = attend(*qkv, packed, scale=SCALE, dropout=dropout)
        seen.append(attended.importance())
        context = attended.context()
    assert torch.equal(*seen)
    assert not torch.allclose(context, by_hand(*qkv, packed, None, None)[0])


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_from_bytes(share, dtype):
    """As F.dropout, its share rounded to 1/256: what stays is scaled up, neighbours are independent."""
    values = (torch.rand(50, 401, dtype=dtype) + 0.5).requires_grad_()
    torch.manual_seed(7)
    dropped = matrix._dropout(values, share)
    torch.manual_seed(7)
    assert torch.equal(dropped, matrix._dropout(values, share))
    gone = dropped == 0
    level = round(256 * share) / 256
    assert abs(gone.double().mean() - level) < 0.015  # four standard deviations
    torch.testing.assert_close(dropped[~gone], (values / (1 - level))[~gone])
    both = (gone[:, 1:] & gone[:, :-1]).double().mean()
    assert abs(both - level**2) < 0.015
    dropped.sum().backward()
    assert torch.equal(values.grad == 0, gone)


@given(lengths_of_batches, windows, seeds, st.booleans())
def test_weight_in_reach(lengths, window, seed, gaps):
    packed = ragged(lengths, seed if gaps else None)
    weight = torch.rand(packed.tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = []
    for i in range(packed.tokens):
        near = packed.sequence == packed.sequence[i]
        if window is not None:
            near &= (packed.positions - packed.positions[i]).abs() <= window
        expected.append(weight[near].sum())
    torch.testing.assert_close(
        weight_in_reach(packed, window, weight), torch.stack(expected), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("window", [None, 2])
def test_gradients(window):
    """Through context and importance, kept tokens and dropped ones, and the gates."""
    packed = ragged([5, 1, 4], gaps=0)
    keep = packed.positions % 2 == 0
    log_weight = -torch.rand(packed.tokens, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (*tensors(packed), log_weight)]

    def decided(query, key, value, log_weight):
        return run(packed, (query, key, value), window, log_weight, keep)

    def few(query, key, value, log_weight):  # the branch that gathers the survivors' rows first
        return run(packed, (query, key, value), window, log_weight, packed.positions == 0)

    def fused(query, key, value):
        return run(packed, (query, key, value), window, importance=False)[0]

    assert torch.autograd.gradcheck(decided, inputs)
    assert torch.autograd.gradcheck(few, inputs)

    def with_table(query, key, value, table):
        return run(packed, (query, key, value), window, None, keep, table=table)

    assert torch.autograd.gradcheck(fused, inputs[:3])
    assert torch.autograd.gradcheck(with_table, [*inputs[:3], table_of(HEADS, 4).requires_grad_()])
    assert torch.autograd.gradcheck(lambda w: weight_in_reach(packed, window, w.exp()), inputs[3:])
