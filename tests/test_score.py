"""Learned scores, by torch and by native code, against a loop in float64."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.test_attention import ragged
from thresher import native
from thresher.pruners import score
from thresher.pruners.score import LARGEST, fair_scores


def by_loop(importance, hidden, vector, packed, alone):
    out = []
    for start, end in zip(packed.cu_seqlens[:-1].tolist(), packed.cu_seqlens[1:].tolist(), strict=True):
        some = [
            min(max(float(row.double() @ vector.double()), -LARGEST), LARGEST) for row in hidden[start:end]
        ]
        given_too = importance[start:end].double()
        raw = torch.tensor(some, dtype=torch.float64).exp() * (1.0 if alone else given_too)
        out.append(raw / raw.sum() * given_too.sum())
    return torch.cat(out)


batches = given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.integers(0, 1000),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([3, 16, 40, 96]),
    st.sampled_from([0.1, 5.0]),  # the latter reaches the bounds
    st.booleans(),
)


def check(lengths, seed, dtype, dim, size, alone):
    packed, generator = ragged(lengths), torch.Generator().manual_seed(seed)
    importance = torch.rand(packed.tokens, generator=generator) + 0.01
    hidden = torch.randn(packed.tokens, dim + 2, generator=generator).to(dtype)[:, :dim]
    vector = size * torch.randn(dim, generator=generator)
    found = fair_scores(importance, hidden, vector, packed, alone)
    assert found.dtype == torch.float32
    expected = by_loop(importance, hidden, vector, packed, alone)
    torch.testing.assert_close(found.double(), expected, rtol=3e-4, atol=1e-7)
    return found


@settings(max_examples=30, deadline=None)
@batches
def test_by_torch(lengths, seed, dtype, dim, size, alone):
    with patch.object(native, "library", None):
        check(lengths, seed, dtype, dim, size, alone)


@pytest.mark.skipif(native.library is None, reason="native code is not built")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@batches
def test_by_native_code(instructions, lengths, seed, dtype, dim, size, alone):
    with patch.object(score, "_native", wraps=score._native) as fast:
        check(lengths, seed, dtype, dim, size, alone)
    assert fast.called


@pytest.mark.skipif(native.library is None, reason="native code is not built")
def test_a_nan_stays_in_its_sequence_and_gradients_take_torch():
    packed = ragged([4, 3])
    hidden, vector = torch.randn(7, 8), torch.randn(8)
    hidden[1, 2] = torch.nan
    found = fair_scores(torch.ones(7), hidden, vector, packed)
    assert found[1].isnan()
    assert found[4:].isfinite().all()
    with patch.object(score, "_native", side_effect=AssertionError):
        fair_scores(torch.ones(7), hidden, vector.requires_grad_(), packed).sum().backward()
