"""PackedBatch against plain Python lists."""

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thresher.errors import UserError
from thresher.packed import PackedBatch

lengths_of_batches = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def padded(lengths, side="right", extra=0):
    """Mask and values [batch, length]; a value names its row and place: 100 * row + place."""
    width = max(lengths) + extra
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    values = torch.full((len(lengths), width), -1)
    for row, n in enumerate(lengths):
        columns = slice(0, n) if side == "right" else slice(width - n, width)
        mask[row, columns] = 1
        values[row, columns] = 100 * row + torch.arange(n)
    return mask, values


def listed(lengths):
    return [[100 * row + i for i in range(n)] for row, n in enumerate(lengths)]


def split(packed, values):
    return [part.tolist() for part in values.split(packed.lengths.tolist())]


def drawn_keep(data, lengths):
    """A keep per sequence that always holds its first token."""
    return [[True, *data.draw(st.lists(st.booleans(), min_size=n - 1, max_size=n - 1))] for n in lengths]


@given(lengths_of_batches, st.sampled_from(["right", "left"]), st.integers(0, 3), st.booleans())
def test_from_padded(lengths, side, extra, as_bool):
    mask, values = padded(lengths, side, extra)
    packed, flat, wide = PackedBatch.from_padded(
        mask.bool() if as_bool else mask, values, values[..., None] * 2
    )
    assert split(packed, flat) == listed(lengths)
    assert torch.equal(wide, flat[:, None] * 2)
    assert packed.positions.tolist() == [i for n in lengths for i in range(n)]
    assert packed.lengths.tolist() == packed.original_lengths.tolist() == lengths
    assert packed.sequence.tolist() == [row for row, n in enumerate(lengths) for _ in range(n)]
    assert packed.cu_seqlens.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    assert packed.cu_seqlens.dtype == torch.int32
    assert packed.positions.dtype == packed.lengths.dtype == torch.int64
    assert (packed.batch, packed.tokens) == (len(lengths), sum(lengths))


@given(lengths_of_batches, st.data())
def test_keep_and_keep_again(lengths, data):
    packed, flat = PackedBatch.from_padded(*padded(lengths))
    expected = listed(lengths)
    for _ in range(3):
        keep = drawn_keep(data, [len(row) for row in expected])
        expected = [[v for v, k in zip(*pair, strict=True) if k] for pair in zip(expected, keep, strict=True)]
        keep = torch.tensor(list(chain(*keep)))
        packed, flat = packed.keep(keep), flat[keep]
        assert split(packed, flat) == expected
        assert packed.positions.tolist() == [v % 100 for row in expected for v in row]
        assert packed.original_lengths.tolist() == lengths
        assert packed.cu_seqlens.dtype == torch.int32
        assert packed.sequence.tolist() == [v // 100 for row in expected for v in row]
        assert packed.first_tokens(flat).tolist() == [row[0] for row in expected]


@given(lengths_of_batches, st.data())
def test_keep_may_leave_a_sequence_empty(lengths, data):
    """The prefix rule is the model's, not the batch's."""
    packed, flat = PackedBatch.from_padded(*padded(lengths))
    keep = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(flat), max_size=len(flat))))
    kept = packed.keep(keep)
    assert split(kept, flat[keep]) == [[v for v in row if keep[flat == v]] for row in listed(lengths)]


@given(lengths_of_batches, st.data())
def test_sum_mean_and_to_padded(lengths, data):
    packed, _ = PackedBatch.from_padded(*padded(lengths))
    keep = torch.tensor(list(chain(*drawn_keep(data, lengths))))
    packed = packed.keep(keep)
    values = torch.randn(packed.tokens, 3, dtype=torch.float64)
    weight = torch.rand(packed.tokens, dtype=torch.float64) + 0.1
    parts, weights = (x.split(packed.lengths.tolist()) for x in (values, weight))
    close = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(packed.sum(values), torch.stack([p.sum(0) for p in parts]), **close)
    torch.testing.assert_close(packed.sum(weight), torch.stack([w.sum() for w in weights]), **close)
    torch.testing.assert_close(packed.mean(values), torch.stack([p.mean(0) for p in parts]), **close)
    expected = torch.stack([w @ p / w.sum() for p, w in zip(parts, weights, strict=True)])
    torch.testing.assert_close(packed.mean(values, weight), expected, **close)

    wide, mask = packed.to_padded(values, fill=7.0)
    assert wide.shape == (packed.batch, packed.lengths.max(), 3)
    assert torch.equal(mask.sum(1), packed.lengths)
    assert torch.equal(wide[mask], values)
    assert (wide[~mask] == 7.0).all()
    again, back = PackedBatch.from_padded(mask, wide)
    assert torch.equal(back, values)
    assert torch.equal(again.cu_seqlens, packed.cu_seqlens)


def test_sums_are_differentiable():
    packed, _ = PackedBatch.from_padded(*padded([3, 1, 4]))
    values = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(packed.sum, (values,))
    assert torch.autograd.gradcheck(packed.mean, (values, weight))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 1, 0], [1, 0, 1]], "holes in row 1"),
        ([[0, 1, 0, 1]], "holes in row 0"),
        ([[1, 1, 1], [1, 1, 0], [0, 0, 0]], "no real token in row 2"),
        ([1, 1, 0], r"shape \[3\]"),
        ([[[1, 1]]], r"shape \[1, 1, 2\]"),
    ],
)
def test_refused_masks(mask, message):
    with pytest.raises(UserError, match=message):
        PackedBatch.from_padded(torch.tensor(mask))


def test_ones_between_padding_on_both_sides_are_one_run():
    packed, values = PackedBatch.from_padded(torch.tensor([[0, 1, 1, 0]]), torch.tensor([[5, 6, 7, 8]]))
    assert values.tolist() == [6, 7]
    assert packed.positions.tolist() == [0, 1]


def test_means_of_long_texts_in_bfloat16():
    packed, values = PackedBatch.from_padded(
        torch.ones(1, 2000), torch.ones(1, 2000, 3, dtype=torch.bfloat16)
    )
    assert packed.mean(values).tolist() == [[1.0, 1.0, 1.0]]
    assert packed.mean(values).dtype == torch.bfloat16


@pytest.mark.parametrize("mask", [[[1, 1], [1, 1]], [[1, 1], [1, 0]]])
def test_refuses_inputs_of_another_shape(mask):
    for wrong in (torch.ones(4, 1), torch.ones(1, 2), torch.ones(2, 3)):
        with pytest.raises(UserError, match="attention_mask is"):
            PackedBatch.from_padded(torch.tensor(mask), wrong)
