"""Engines compute tokens in round numbers of rows, and nobody else knows."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from thresher.engines.rows import Rows
from thresher.packed import PackedBatch


def of(tokens, rounded=True):
    return Rows.of(
        PackedBatch(torch.tensor([0, tokens]), torch.arange(tokens), torch.tensor([tokens])), rounded
    )


@given(st.integers(1, 100_000))
def test_rows_are_a_few_more_than_the_tokens(tokens):
    rows = of(tokens)
    spare = rows.count - tokens
    assert 0 <= spare < max(16, tokens / 32)
    filled = rows.filled(torch.arange(tokens)[:, None])
    assert filled[:, 0].tolist() == [*range(tokens), *[tokens - 1] * spare]
    assert rows.filled(filled) is filled


def test_rows_come_in_few_numbers():
    assert len({of(tokens).count for tokens in range(1, 8193)}) == 64 + 3 * 32


def test_rows_are_the_tokens_where_the_engine_does_not_mind():
    assert of(37, rounded=False).count == 37
