"""The native route, with all instructions that this machine has, against loops in float64."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.test_attention import SCALE, by_hand, ragged
from thresher import native
from thresher.attention import attend, matrix
from thresher.attention import native as route
from thresher.errors import UserError
from thresher.pruners import Decision

pytestmark = pytest.mark.skipif(native.library is None, reason="native attention is not built")
CLOSE = {torch.float32: {"atol": 1e-5, "rtol": 1e-5}, torch.bfloat16: {"atol": 1e-2, "rtol": 1e-2}}


@pytest.fixture(params=["amx", "avx512", "avx2", "portable"], scope="module")
def instructions(request):
    try:
        yield native.use(request.param)
    except UserError:
        pytest.skip(f"this machine has no {request.param}")
    finally:
        native.use()


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


def run(qkv, packed, window=None, keep=None):
    """Context, and the importance that it showed."""
    seen = []
    context, _ = route.attend(
        *qkv, packed, scale=SCALE, window=window, decide=lambda i: seen.append(i) or Decision(keep)
    )
    return context, seen[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.integers(1, 20), st.integers(1, 90)), min_size=1, max_size=5),
    st.sampled_from([None, 0, 3, 20, 1000]),
    st.integers(0, 1000),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([3, 16, 32, 40, 64, 96]),
    st.integers(1, 4),
    st.sampled_from(["fused", "apart", "heads first", "dims apart"]),
    st.sampled_from([0.0, 0.3, 0.9]),
)
def test_equals_brute_force(instructions, lengths, window, seed, gaps, dtype, dim, heads, layout, share):
    packed = ragged(lengths, seed if gaps else None)
    qkv = inputs(packed, heads, dim, dtype, layout, seed)
    keep = torch.rand(packed.tokens, generator=torch.Generator().manual_seed(seed)) < share
    keep[packed.cu_seqlens[:-1].long()] = True
    expected, importance = by_hand(*qkv, packed, window, None)

    context, seen = run(qkv, packed, window)
    assert context.dtype == dtype
    assert seen.dtype == torch.float32
    torch.testing.assert_close(context.double(), expected, **CLOSE[dtype])
    # Importance is of float32's precision, whatever the inputs are rounded to.
    torch.testing.assert_close(seen.double(), importance, atol=1e-5, rtol=1e-5)

    decided, _ = run(qkv, packed, window, keep)
    known, _ = route.attend(*qkv, packed, scale=SCALE, window=window, decide=Decision(keep))
    undecided, _ = route.attend(*qkv, packed, scale=SCALE, window=window)
    assert torch.equal(decided, context[keep])
    assert torch.equal(known, context[keep])
    assert torch.equal(undecided, context)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_depends_on_neither_batch_nor_threads(instructions, dtype):
    packed = ragged([70, 3, 129, 1, 40])
    qkv = inputs(packed, 3, 32, dtype)
    context, importance = run(qkv, packed)
    with patch.object(native, "threads", lambda work: torch.get_num_threads()):
        threads = torch.get_num_threads()
        try:
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                for team in (native.team, None):  # torch's, and threads of its own
                    with patch.object(native, "team", team):
                        again = run(qkv, packed)
                    assert torch.equal(again[0], context)
                    assert torch.equal(again[1], importance)
        finally:
            torch.set_num_threads(threads)
    for start, end in zip(packed.cu_seqlens[:-1].tolist(), packed.cu_seqlens[1:].tolist(), strict=True):
        alone = run([x[start:end] for x in qkv], ragged([end - start]))
        assert torch.equal(alone[0], context[start:end])
        assert torch.equal(alone[1], importance[start:end])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_scores(instructions, dtype):
    packed = ragged([40, 9])
    query, key, value = inputs(packed, 2, 32, dtype)
    context, importance = run((query * 300, key * 300, value), packed)
    expected, wanted = by_hand(query * 300, key * 300, value, packed, None, None)
    torch.testing.assert_close(context.double(), expected, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(importance.double(), wanted, atol=2e-2, rtol=0)
    query = query.clone()
    query[3] = torch.nan  # shows, and only in its own sequence
    context, importance = run((query, key, value), packed)
    assert context[3].isnan().all()
    assert importance[:40].isnan().all()
    assert importance[40:].isfinite().all()
    assert context[40:].isfinite().all()


def test_memory_grows_with_length_alone(instructions):
    """A window over a long text, which also is quick."""
    packed = ragged([6000])
    qkv = inputs(packed, 1, 32, torch.float32)
    context, importance = run(qkv, packed, window=8)
    few = ragged([40])
    expected, wanted = by_hand(*(x[:40] for x in qkv), few, 8, None)
    torch.testing.assert_close(context[:32].double(), expected[:32], **CLOSE[torch.float32])
    torch.testing.assert_close(importance[:24].double(), wanted[:24], atol=1e-5, rtol=1e-5)


def test_what_it_serves():
    packed = ragged([5])
    qkv = inputs(packed, 2, 8, torch.float32)

    def taken(*qkv, **options):
        with (
            patch.object(route, "attend", wraps=route.attend) as fast,
            patch.object(matrix, "attend", wraps=matrix.attend) as plain,
        ):
            attend(*qkv, packed, scale=SCALE, **options)
        assert fast.called != plain.called
        return "native" if fast.called else "matrix"

    assert taken(*qkv) == "native"
    assert taken(*qkv, dropout=0.1) == "matrix"
    assert taken(*qkv, log_weight=torch.zeros(5)) == "matrix"
    assert taken(*(x.double() for x in qkv)) == "matrix"
    assert taken(qkv[0].clone().requires_grad_(), *qkv[1:]) == "matrix"
    with torch.no_grad():
        assert taken(qkv[0].clone().requires_grad_(), *qkv[1:]) == "native"
    with patch.object(native, "library", None):
        assert taken(*qkv) == "matrix"


def test_is_a_torch_operation():
    packed = ragged([5, 9])
    qkv = inputs(packed, 2, 8, torch.float32)
    arguments = (*qkv, packed.cu_seqlens, packed.positions, SCALE, -1, None, None, True)
    torch.library.opcheck(torch.ops.thresher.attend, arguments)
