"""The native route, with all instructions that this machine has, against loops in float64."""

from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.test_attention import SCALE, biased, by_hand, ragged, table_of
from thresher import PruningConfig, native, prune
from thresher.attention import Asked, TokenBias, attend
from thresher.attention.native import Native, one_pass
from thresher.engines.layers.int8 import finish_, quantise
from thresher.errors import UserError
from thresher.memory import peak_above
from thresher.packed import PackedBatch
from thresher.pruners.score import fair_scores

pytestmark = pytest.mark.skipif(native.library is None, reason="native attention is not built")
# Scores of wide heads reach 40, where float32 is 4e-6 coarse: plain torch is 1.3e-5 off there.
CLOSE = {torch.float32: {"atol": 4e-5, "rtol": 1e-5}, torch.bfloat16: {"atol": 1e-2, "rtol": 1e-2}}


def inputs(packed, heads, dim, dtype, layout="fused", seed=0):
    """Queries, keys and values, as the layouts that families make."""
    generator = torch.Generator().manual_seed(seed)
    shape = {
        "fused": (packed.tokens, 3, heads, dim),
        "apart": (3, packed.tokens, heads, dim),
        "heads first": (3, heads, packed.tokens, dim),
        "dims apart": (packed.tokens, heads, dim, 3),
    }[layout]
    values = torch.randn(shape, generator=generator).to(dtype)
    if layout == "dims apart":
        return values.unbind(3)
    parts = values.unbind(1 if layout == "fused" else 0)
    return tuple(part.transpose(0, 1) for part in parts) if layout == "heads first" else parts


def run(qkv, packed, window=None, keep=None, log_weight=None, importance=True, table=None):
    """Context, and the importance, where it is asked for."""
    attended = Native(Asked(*qkv, packed, SCALE, window, log_weight, bias=biased(packed, table)))
    seen = attended.importance() if importance else None
    return attended.context(None if keep is None else keep.nonzero().squeeze(1)), seen


def log_weights(packed, seed):
    """Some near 0 and some far below, as gates leave them."""
    draw = torch.rand(packed.tokens, generator=torch.Generator().manual_seed(seed))
    return -30 * draw**4


# Lengths, window, seed, share of tokens that are gone, dtype, heads, layout, numbers of a table; widths of
# heads come after them.
PROBLEMS = (
    st.lists(st.one_of(st.integers(1, 20), st.integers(1, 90)), min_size=1, max_size=5),
    st.sampled_from([None, 0, 3, 20, 1000]),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.0, 0.3, 0.8]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(1, 4),
    st.sampled_from(["fused", "apart", "heads first", "dims apart"]),
    st.sampled_from([0, 0, 1, 20, 32, 33, 300]),
)
often = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@often
@given(
    *PROBLEMS,
    st.sampled_from([3, 16, 32, 40, 64, 96]),
    st.sampled_from([0.0, 0.3, 0.9]),
    st.booleans(),
)
def test_equals_brute_force(
    instructions, lengths, window, seed, gone, dtype, heads, layout, numbers, dim, share, weighed
):
    packed = ragged(lengths, seed if gone else None, gone)
    qkv = inputs(packed, heads, dim, dtype, layout, seed)
    keep = torch.rand(packed.tokens, generator=torch.Generator().manual_seed(seed)) < share
    keep[packed.cu_seqlens[:-1].long()] = True
    log_weight = log_weights(packed, seed) if weighed else None
    table = table_of(heads, numbers, seed)
    expected, importance = by_hand(*qkv, packed, window, log_weight, table=table)

    context, seen = run(qkv, packed, window, None, log_weight, table=table)
    assert context.dtype == dtype
    assert seen.dtype == torch.float32
    torch.testing.assert_close(context.double(), expected, **CLOSE[dtype])
    # Importance is of float32's precision, whatever the inputs are rounded to.
    torch.testing.assert_close(seen.double(), importance, **CLOSE[torch.float32])

    decided, _ = run(qkv, packed, window, keep, log_weight, table=table)
    known, _ = run(qkv, packed, window, keep, log_weight, importance=False, table=table)
    undecided, _ = run(qkv, packed, window, None, log_weight, importance=False, table=table)
    assert torch.equal(decided, context[keep])
    assert torch.equal(known, context[keep])
    assert torch.equal(undecided, context)


def slopes(attend, qkv, log_weight, wanted, packed, keep=None, importance=True, table=None):
    """Gradients of a weighted sum of context and importance; `wanted` are the weights."""
    given = [None if x is None else x.detach().clone().requires_grad_() for x in (*qkv, log_weight, table)]
    inputs = [x for x in given if x is not None]
    context, seen = attend(*given)
    kept = slice(None) if keep is None else keep
    loss = (context.double() * wanted[0][kept]).sum()
    if importance:
        loss = loss + (seen.double() * wanted[1]).sum()
    return torch.autograd.grad(loss, inputs)


@often
@given(
    *PROBLEMS,
    st.sampled_from([3, 16, 32, 40, 64]),
    st.booleans(),
    st.sampled_from(["all", "dropped", "dropped, with importance", "known"]),
)
def test_gradients_equal_brute_force(
    instructions, lengths, window, seed, gone, dtype, heads, layout, numbers, dim, weighed, what
):
    packed = ragged(lengths, seed if gone else None, gone)
    qkv = inputs(packed, heads, dim, dtype, layout, seed)
    generator = torch.Generator().manual_seed(seed)
    log_weight = log_weights(packed, seed) if weighed else None
    keep = None if what == "all" else torch.rand(packed.tokens, generator=generator) < 0.4
    wanted = [
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((packed.tokens, heads * dim), (packed.tokens,))
    ]
    importance = what in ("all", "dropped, with importance")

    def by_loops(q, k, v, w, table):
        context, seen = by_hand(q, k, v, packed, window, w, table=table)
        return context if keep is None else context[keep], seen

    def ours(q, k, v, w, table):
        return run((q, k, v), packed, window, keep, w, what != "known", table)

    arguments = (log_weight, wanted, packed, keep, importance, table_of(heads, numbers, seed))
    expected, found = slopes(by_loops, qkv, *arguments), slopes(ours, qkv, *arguments)
    assert all(a.dtype == b.dtype for a, b in zip(found, expected, strict=True))
    for a, b in zip(found, expected, strict=True):
        # What arrives in bfloat16 is rounded on its way, and so is what is given back.
        close = {"atol": 3e-2 * max(1.0, float(b.abs().max())), "rtol": 1e-2}
        if dtype == torch.float32:
            close = {"atol": 2e-5 * max(1.0, float(b.abs().max())), "rtol": 1e-4}
        torch.testing.assert_close(a.double(), b.double(), **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [32, 40])
def test_heads_in_groups_are_heads_repeated(instructions, dtype, dim):
    """Both ways, without a copy of keys and values."""
    packed, table = ragged([70, 9], gaps=3), table_of(6, 20)
    query, key, value = inputs(packed, 6, dim, dtype)
    few = query, key[:, :2], value[:, 2:4]
    wanted = [torch.randn(packed.tokens, 6 * dim).double(), torch.randn(packed.tokens).double()]

    def grouped(q, k, v, _, table):
        return run((q, k, v), packed, table=table)

    def repeated(q, k, v, _, table):
        return run((q, *(x.repeat_interleave(3, 1) for x in (k, v))), packed, table=table)

    for found, expected in zip(grouped(*few, None, table), repeated(*few, None, table), strict=True):
        assert torch.equal(found, expected)
    ours, theirs = (slopes(made, few, None, wanted, packed, table=table) for made in (grouped, repeated))
    rounding = 1e-5 if dtype == torch.float32 else 3e-2
    for found, expected in zip(ours, theirs, strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(
            found, expected, atol=rounding * float(expected.abs().max()), rtol=rounding
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_depend_on_no_batch_mates(instructions, dtype):
    packed = ragged([70, 3, 129, 1, 40])
    qkv, log_weight = inputs(packed, 3, 32, dtype), log_weights(packed, 1)
    wanted = [torch.randn(packed.tokens, 96).double(), torch.randn(packed.tokens).double()]
    table = table_of(3, 20).requires_grad_()

    def run_some(q, k, v, w, _, packed=packed):
        return run((q, k, v), packed, log_weight=w, table=table)

    found = slopes(run_some, qkv, log_weight, wanted, packed)
    for start, end in zip(packed.cu_seqlens[:-1].tolist(), packed.cu_seqlens[1:].tolist(), strict=True):
        alone = partial(run_some, packed=ragged([end - start]))
        *parts, weight = (x[start:end] for x in (*qkv, log_weight))
        again = slopes(alone, parts, weight, [x[start:end] for x in wanted], packed)
        assert all(torch.equal(a, b[start:end]) for a, b in zip(again, found, strict=True))


def test_log_weights_may_lie_apart(instructions):
    packed = ragged([9, 5])
    qkv, twice = inputs(packed, 2, 8, torch.float32), log_weights(ragged([18, 10]), 3)
    wanted = [torch.ones(14, 16), torch.ones(14)]
    found = [
        slopes(lambda *x: run(x[:3], packed, log_weight=x[3]), qkv, weight, wanted, packed)
        for weight in (twice[::2], twice[::2].contiguous())
    ]
    apart = slopes(lambda *x: run(x[:3], packed, log_weight=x[3][::2]), qkv, twice, wanted, packed)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(apart[:3], found[1][:3], strict=True))


def test_nearly_dead_keys_make_no_denormal_numbers(instructions):
    """They would take a hundred times as long; and the caller's own arithmetic is left as it was."""
    packed = ragged([40, 30])
    qkv, weight = inputs(packed, 2, 32, torch.float32), torch.full((70,), -82.0)
    weight[::2] = 0.0
    wanted = [torch.rand(70, 64) * 1e-3, torch.rand(70)]
    for found in slopes(lambda *x: run(x[:3], packed, log_weight=x[3]), qkv, weight, wanted, packed)[:3]:
        tiny = found.abs()[found != 0].min()
        assert tiny > 1e-38
    assert float(torch.tensor(1e-39) * 1.0) > 0


def test_spare_rows_get_no_gradient():
    packed = ragged([5, 4])
    qkv = inputs(ragged([12]), 2, 8, torch.float32)
    found = slopes(lambda *x: run(x[:3], packed), qkv, None, [torch.ones(9, 16), torch.ones(9)], packed)
    assert all((x[9:] == 0).all() and (x[:9] != 0).any() for x in found[:3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("numbers", [0, 32])
def test_depends_on_neither_batch_nor_threads(instructions, dtype, numbers):
    packed = ragged([70, 3, 129, 1, 40])
    qkv, how = inputs(packed, 3, 32, dtype), {"table": table_of(3, numbers)}
    context, importance = run(qkv, packed, **how)
    with patch.object(native, "threads", lambda *_: torch.get_num_threads()):
        threads = torch.get_num_threads()
        try:
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                for team in (native.team, None):  # torch's, and threads of its own
                    with patch.object(native, "team", team):
                        again = run(qkv, packed, **how)
                    assert torch.equal(again[0], context)
                    assert torch.equal(again[1], importance)
        finally:
            torch.set_num_threads(threads)
    for start, end in zip(packed.cu_seqlens[:-1].tolist(), packed.cu_seqlens[1:].tolist(), strict=True):
        alone = run([x[start:end] for x in qkv], ragged([end - start]), **how)
        assert torch.equal(alone[0], context[start:end])
        assert torch.equal(alone[1], importance[start:end])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("numbers", [32, 33])
def test_the_bias_goes_by_differences_alone(instructions, dtype, numbers):
    """Wherever a text's first token is, and however much longer others were."""
    packed, further = ragged([170, 9], gaps=3, gone=0.6), torch.tensor([5, 400])
    moved = PackedBatch(
        packed.cu_seqlens, packed.positions + further[packed.sequence], torch.tensor([80, 1000])
    )
    qkv, how = inputs(packed, 2, 32, dtype), {"window": 20, "table": table_of(2, numbers)}
    for a, b in zip(run(qkv, packed, **how), run(qkv, moved, **how), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_scores(instructions, dtype):
    packed = ragged([40, 9])
    query, key, value = inputs(packed, 2, 32, dtype)
    context, importance = run((query * 300, key * 300, value), packed)
    expected, wanted = by_hand(query * 300, key * 300, value, packed, None, None)
    torch.testing.assert_close(context.double(), expected, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(importance.double(), wanted, atol=2e-2, rtol=0)
    huge = run((query * 1e6, key * 1e6, value), packed)[0]  # one-hot, and no NaN
    torch.testing.assert_close(huge, run((query * 1e5, key * 1e5, value), packed)[0])
    query = query.clone()
    query[3] = torch.nan  # shows, and only in its own sequence
    context, importance = run((query, key, value), packed)
    assert context[3].isnan().all()
    assert importance[:40].isnan().all()
    assert importance[40:].isfinite().all()
    assert context[40:].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_heads_than_are_packed_together(instructions, dtype):
    packed = ragged([1500, 7])
    qkv, table = inputs(packed, 3, 64, dtype), table_of(3, 32)
    context, importance = run(qkv, packed, table=table)
    expected, wanted = by_hand(*qkv, packed, None, None, table=table)
    torch.testing.assert_close(context.double(), expected, **CLOSE[dtype])
    torch.testing.assert_close(importance.double(), wanted, atol=2e-5, rtol=2e-5)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell peak memory")
def test_no_square_matrix_is_held():
    packed = ragged([8192])
    qkv = inputs(packed, 2, 32, torch.bfloat16)
    run([x[:64] for x in qkv], ragged([64]))
    assert peak_above(lambda: run(qkv, packed)) < 60  # of 8192 x 8192 floats: 256 MB


def test_a_window_over_a_long_text(instructions):
    packed = ragged([6000])
    qkv, table = inputs(packed, 1, 32, torch.float32), table_of(1, 9)
    context, importance = run(qkv, packed, window=8, table=table)
    few = ragged([40])
    expected, wanted = by_hand(*(x[:40] for x in qkv), few, 8, None, table=table)
    torch.testing.assert_close(context[:32].double(), expected[:32], **CLOSE[torch.float32])
    torch.testing.assert_close(importance[:24].double(), wanted[:24], atol=1e-5, rtol=1e-5)


def some_empty(lengths):
    """A packed batch of such lengths, which may be 0."""
    starts = torch.tensor([0, *lengths]).cumsum(0).int()
    positions = torch.tensor([i for length in lengths for i in range(length)], dtype=torch.int64)
    return PackedBatch(starts, positions, torch.tensor(lengths, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("lengths", "heads", "dim"),
    [([], 2, 32), ([0], 2, 32), ([0, 0], 0, 0), ([0, 3, 0, 2, 0], 2, 32), ([3, 0, 2], 0, 32), ([3, 2], 2, 0)],
)
@pytest.mark.parametrize(("window", "weighed", "numbers"), [(None, False, 0), (1, True, 0), (1, True, 40)])
def test_nothing_is_no_fault(instructions, lengths, heads, dim, dtype, window, weighed, numbers):
    """No sequence, sequences of no token, no head, heads of no width, and no survivor."""
    packed = some_empty(lengths)
    qkv = inputs(packed, heads, dim, dtype)
    weight = torch.zeros(packed.tokens) if weighed else None
    table = torch.ones(heads, numbers) if numbers else None  # alike, too
    how = {"log_weight": weight, "table": table}
    context, importance = run(qkv, packed, window, **how)
    full = some_empty([length for length in lengths if length])
    if heads and dim and full.batch:
        expected, wanted = run(qkv, full, window, **how)
    else:  # all keys are alike where no number tells them apart; and no head gives no attention
        expected = torch.empty(packed.tokens, heads * dim, dtype=dtype)
        alike = [torch.zeros(packed.tokens, 1, 1)] * 3
        wanted = run(alike, packed, window, log_weight=weight)[1] * bool(heads)
    assert torch.equal(context, expected)
    torch.testing.assert_close(importance, wanted)

    gone = torch.zeros(packed.tokens, dtype=torch.bool)
    assert run(qkv, packed, window, gone, **how)[0].shape == (0, heads * dim)
    known, _ = run(qkv, packed, window, gone, importance=False, **how)
    assert known.shape == (0, heads * dim)
    weights = [torch.ones(packed.tokens, heads * dim), torch.ones(packed.tokens)]

    def ours(query, key, value, log_weight, table, keep=None):
        return run((query, key, value), packed, window, keep, log_weight, table=table)

    for keep in (None, gone):
        found = slopes(partial(ours, keep=keep), qkv, weight, weights, packed, keep, table=table)
        assert all(grad.isfinite().all() for grad in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_rows_and_rows_of_no_width(instructions, dtype):
    for rows, width in ((0, 5), (3, 0), (0, 0)):
        values, sizes = quantise(torch.ones(rows, width, dtype=dtype))
        assert values.shape == (rows, width)
        assert torch.equal(sizes, torch.zeros(rows))
        finished = finish_(torch.ones(rows, width, dtype=dtype), sizes, torch.zeros(width), gelu=True)
        assert finished.shape == (rows, width)
    for lengths in ([], [0], [0, 3, 0]):
        packed = some_empty(lengths)
        hidden, importance = torch.ones(packed.tokens, 8, dtype=dtype), torch.ones(packed.tokens)
        torch.testing.assert_close(fair_scores(importance, hidden, torch.ones(8), packed), importance)


@pytest.mark.parametrize(
    ("shape", "real", "words"),
    [((0, 4), 1, "empty"), ((4, 0), 1, "empty"), ((0, 0), 1, "empty"), ((2, 3), 0, "no real token in row 0")],
)
def test_a_model_says_what_it_lacks_in_a_batch_of_nothing(shape, real, words):
    model = prune(tiny.FAMILIES["bert"](dtype=torch.float32).eval(), PruningConfig())
    with pytest.raises(UserError, match=words):
        model(input_ids=torch.ones(shape, dtype=torch.int64), attention_mask=torch.full(shape, real))


def test_what_it_serves():
    packed = ragged([5])
    qkv = inputs(packed, 2, 8, torch.float32)

    def taken(*qkv, **options):
        return type(attend(*qkv, packed, scale=SCALE, **options)).__name__.lower()

    assert taken(*qkv) == "native"
    assert taken(*qkv, dropout=0.1) == "native"
    assert taken(*qkv, log_weight=torch.zeros(5)) == "native"
    assert taken(*qkv, bias=biased(packed, table_of(2, 40))) == "native"
    numbers = torch.zeros(5, 2, 40)
    assert taken(*qkv, bias=TokenBias(numbers, None, torch.zeros(9, dtype=torch.int64))) == "matrix"
    assert taken(*(x.double() for x in qkv)) == "matrix"
    assert taken(qkv[0].clone().requires_grad_(), *qkv[1:]) == "native"
    assert taken(qkv[0], qkv[1], qkv[2].bfloat16().float()) == "native"
    with patch.object(native, "library", None):
        assert taken(*qkv) == "matrix"
    assert not Native.serves(Asked(qkv[0], qkv[1], qkv[2].bfloat16(), packed, SCALE))
    assert taken(qkv[0], *(x[:, :1] for x in qkv[1:])) == "native"
    assert not Native.serves(Asked(qkv[0][:, :1], *qkv[1:], packed, SCALE))


def test_refuses_fewer_queries_than_positions():
    packed = ragged([40])
    with pytest.raises(ValueError, match="fewer"):
        run([x[:4] for x in inputs(packed, 2, 32, torch.float32)], packed)


def one_call(packed, **changed):
    """One call of the native code, without a window."""
    names = ("query", "key", "value")
    given = dict(zip(names, inputs(packed, 2, 8, torch.float32), strict=True)) | {
        "log_weight": torch.zeros(packed.tokens),
        "starts": packed.cu_seqlens,
        "positions": packed.positions,
        "rows": torch.arange(2),
        "row_starts": torch.tensor([0, 1, 2], dtype=torch.int32),
    }
    given |= {name: change(given[name]) for name, change in changed.items()}
    return one_pass(**given, scale=SCALE, window=None, wanted=True)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("query", lambda x: x.bfloat16()),
        ("value", lambda x: x[:, :, :4]),
        ("value", lambda x: x[:, :1]),
        ("log_weight", lambda x: x[:3]),
        *((name, lambda x: x.long()) for name in ("starts", "row_starts")),
        *((name, lambda x: x.int()) for name in ("positions", "rows")),
        *(
            (name, lambda x: x.repeat_interleave(2)[::2])
            for name in ("starts", "positions", "rows", "row_starts")
        ),
    ],
)
def test_refuses_what_it_would_misread(name, change):
    packed = ragged([5, 9])
    one_call(packed)
    with pytest.raises(ValueError, match="must be"):
        one_call(packed, **{name: change})


@pytest.mark.parametrize("family", ["bert", "modernbert", "modernbert-mean"])
@torch.inference_mode()
def test_a_pruned_model_runs_as_in_float64(family, instructions):
    """Float64 takes the plain route, which the conformance suites compare with the masked reference."""
    models = [
        prune(tiny.FAMILIES[family](dtype=d).eval(), PruningConfig()) for d in (torch.float32, torch.float64)
    ]
    for model in models:
        model.pruner.thresholds.copy_(torch.tensor([0.3, 0.6, 0.7, 0.8]))
    batch = tiny.random_inputs(models[0].model, [30, 7, 1, 18], seed=3)
    single, double = (model(**batch) for model in models)
    assert (double.trace.kept[-1] < double.trace.kept[0]).any()
    assert torch.equal(single.trace.kept, double.trace.kept)
    torch.testing.assert_close(single.logits.double(), double.logits, atol=2e-5, rtol=1e-4)


def test_the_profile_sees_both_ways():
    packed = ragged([5, 9])
    qkv = [x.clone().requires_grad_() for x in inputs(packed, 2, 8, torch.float32)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        run(qkv, packed)[0].sum().backward()
    assert {"thresher::attend", "thresher::attend_backward"} <= {x.key for x in profiler.key_averages()}


@pytest.mark.parametrize("learns", [False, True])
def test_under_torch_compile_it_is_the_same(learns):
    packed = ragged([5, 9])
    qkv = [x.clone().requires_grad_(learns) for x in inputs(packed, 2, 8, torch.float32)]

    def some_rows(*qkv):
        attended = attend(*qkv, packed, scale=SCALE)
        return attended.context((attended.importance() > 1).nonzero().squeeze(1))

    torch._dynamo.reset()
    expected, found = some_rows(*qkv), torch.compile(some_rows, backend="eager")(*qkv)
    assert torch.equal(found, expected)
    if learns:
        grads = (torch.autograd.grad(out.sum(), qkv) for out in (expected, found))
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
