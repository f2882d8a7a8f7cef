"""Dropout in the native route: what is dropped is read off an identity, and all else follows in float64."""

from pathlib import Path

import pytest
import torch

from tests.cases import using
from tests.test_attention import SCALE, biased, by_hand, ragged, table_of
from tests.test_native import CLOSE, inputs, log_weights, run, slopes
from thresher import native
from thresher.attention import Asked, attend
from thresher.attention.native import Native
from thresher.memory import peak_above

pytestmark = pytest.mark.skipif(native.library is None, reason="native attention is not built")


def drawn(qkv, packed, dropout, seed, window=None, log_weight=None, table=None):
    """The native route with a seed of the test's own."""
    bias = biased(packed, table)
    attended = Native(Asked(*qkv, packed, SCALE, window, log_weight, dropout, bias))
    attended._seed = seed
    return attended


def multiplied_by(packed, heads, dropout, seed, dtype=torch.float32):
    """What each probability is multiplied by, ``[n, n]`` for each sequence and head: all are alike without
    scores, and an identity of values shows them."""
    longest = int(packed.lengths.max())
    nothing = torch.zeros(packed.tokens, heads, longest, dtype=dtype)
    own = torch.cat([torch.eye(n, longest) for n in packed.lengths.tolist()])
    value = own[:, None].expand(-1, heads, -1).to(dtype).contiguous()
    context = drawn((nothing, nothing, value), packed, dropout, seed).context()
    gain = 0.0 if dropout == 1 else 1 / (1 - dropout)
    seen = (context.view(packed.tokens, heads, longest) != 0).double() * gain
    parts = seen.split(packed.lengths.tolist())
    return [[part[:, h, : len(part)] for h in range(heads)] for part in parts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("dim", [32, 40])
@pytest.mark.parametrize(("dropout", "gaps", "numbers"), [(0.3, None, 0), (1.0, None, 0), (0.3, 0, 32)])
def test_both_ways_equal_brute_force(instructions, dtype, window, dim, dropout, gaps, numbers):
    packed, heads, seed = ragged([30, 7, 1, 61], gaps), 3, -5
    qkv, log_weight = inputs(packed, heads, dim, dtype), log_weights(packed, 1)
    factors = multiplied_by(packed, heads, dropout, seed, dtype)
    generator = torch.Generator().manual_seed(0)
    wanted = [
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((packed.tokens, heads * dim), (packed.tokens,))
    ]

    def ours(q, k, v, w, table):
        attended = drawn((q, k, v), packed, dropout, seed, window, w, table)
        seen = attended.importance()
        return attended.context(), seen

    def by_loops(q, k, v, w, table):
        return by_hand(q, k, v, packed, window, w, factors, table)

    table = table_of(heads, numbers)
    context, importance = ours(*qkv, log_weight, table)
    expected, _ = by_loops(*qkv, log_weight, table)
    torch.testing.assert_close(context.double(), expected, **CLOSE[dtype])
    if dtype == torch.float32:  # taken before dropout
        assert torch.equal(importance, run(qkv, packed, window, log_weight=log_weight, table=table)[1])
    arguments = (log_weight, wanted, packed, None, True, table)
    for a, b in zip(slopes(ours, qkv, *arguments), slopes(by_loops, qkv, *arguments), strict=True):
        rounding = 2e-5 if dtype == torch.float32 else 3e-2
        close = {"atol": rounding * max(1.0, float(b.abs().max())), "rtol": rounding}
        torch.testing.assert_close(a.double(), b.double(), **close)


def test_drops_as_many_as_asked_each_by_itself(instructions):
    packed, heads, dropout = ragged([200, 200]), 4, 0.3
    gone = torch.stack([torch.stack(part) for part in multiplied_by(packed, heads, dropout, 7)]) == 0
    assert gone.shape == (2, heads, 200, 200)

    def often(event, expected):  # within four standard deviations
        assert abs(event.double().mean() - expected) < 4 * (expected * (1 - expected) / event.numel()) ** 0.5

    often(gone, dropout)
    for shares in (gone.double().mean(-1), gone.double().mean(-2)):  # of queries, and of keys
        assert shares.min() > 0.3 - 5 * 0.0325
        assert shares.max() < 0.3 + 5 * 0.0325
    for dim in range(4):
        size = gone.shape[dim]
        often(gone.narrow(dim, 1, size - 1) & gone.narrow(dim, 0, size - 1), dropout**2)
    other = torch.stack([torch.stack(part) for part in multiplied_by(packed, heads, dropout, 8)]) == 0
    often(gone & other, dropout**2)


def test_all_instructions_drop_the_same(instructions):
    packed = ragged([37, 5])
    found = multiplied_by(packed, 2, 0.4, 123)
    with using("portable"):
        expected = multiplied_by(packed, 2, 0.4, 123)
    assert all(
        torch.equal(a, b) for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_the_seed_is_drawn_from_torchs_numbers():
    packed = ragged([20, 9])
    qkv = inputs(packed, 2, 32, torch.float32)

    def context():
        return attend(*qkv, packed, scale=SCALE, dropout=0.5).context()

    torch.manual_seed(3)
    first, second = context(), context()
    torch.manual_seed(3)
    assert torch.equal(context(), first)
    assert not torch.equal(first, second)


def test_one_drawing_serves_importance_and_survivors():
    packed = ragged([20, 9])
    qkv, kept = inputs(packed, 2, 32, torch.float32), torch.tensor([0, 3, 20])
    attended = attend(*qkv, packed, scale=SCALE, dropout=0.5)
    some = attended.context(kept)
    attended.importance()
    assert torch.equal(attended.context()[kept], some)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell peak memory")
def test_training_holds_no_square_matrix():
    packed = ragged([3000])
    qkv = [x.detach().clone().requires_grad_() for x in inputs(packed, 2, 32, torch.float32)]

    def train():
        attended = attend(*qkv, packed, scale=SCALE, dropout=0.1)
        (attended.context().sum() + attended.importance().sum()).backward()

    train()
    assert peak_above(train) < 30  # a matrix of 3000 x 3000 floats takes 36 MB
