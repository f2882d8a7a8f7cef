"""The packed batch: real tokens of all sequences laid end to end, no padding anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from thresher.errors import UserError


@dataclass(frozen=True)
class PackedBatch:
    """Where the tokens of a packed batch lie. Their values travel beside it as ``[tokens, ...]`` tensors.

    Parameters
    ----------
    cu_seqlens : int32 tensor [batch + 1]
        Sequence ``b`` owns the tokens ``cu_seqlens[b]`` to ``cu_seqlens[b + 1] - 1``.
    positions : int64 tensor [tokens]
        Position of each token among the real tokens of its original sequence, from 0. Dropping
        tokens leaves the positions of the others as they were.
    original_lengths : int64 tensor [batch]
        Tokens of each sequence before anything was dropped.
    """

    cu_seqlens: Tensor
    positions: Tensor
    original_lengths: Tensor

    @classmethod
    def from_padded(cls, attention_mask: Tensor, *padded: Tensor) -> tuple[PackedBatch, *tuple[Tensor, ...]]:
        """Lay padded rows end to end.

        Parameters
        ----------
        attention_mask : tensor [batch, length]
            1 (or True) at real tokens, 0 at padding, which may stand on either side.
        *padded : tensors [batch, length, ...]
            Values to pack along.

        Returns
        -------
        tuple
            The packed batch, then each of `padded` as a tensor ``[tokens, ...]``, which may share memory.

        Raises
        ------
        UserError
            If the mask is not ``[batch, length]``, has a hole, or leaves a row without a token, or a value is
            of another shape.
        """
        if attention_mask.dim() != 2:
            raise UserError(
                f"attention_mask has shape {list(attention_mask.shape)}; pass [batch, length] with 1 at real "
                "tokens and 0 at padding, as the tokenizer makes it."
            )
        mask = attention_mask.bool()
        rows, length = mask.shape
        for values in padded:
            if values.shape[:2] != mask.shape:
                raise UserError(
                    f"attention_mask is {[rows, length]}, but an input is {list(values.shape)}: "
                    "they must be alike."
                )
        if length and mask.all():  # as a text by itself always is
            positions = torch.arange(length, device=mask.device).repeat(rows)
            lengths = mask.new_full((rows,), length, dtype=torch.int64)
            packed = cls(_offsets(lengths), positions, lengths)
            return (packed, *(values.flatten(0, 1) for values in padded))
        lengths = mask.sum(1)
        starts = mask[:, :1].sum(1) + (mask[:, 1:] & ~mask[:, :-1]).sum(1)
        if (wrong := starts != 1).any():
            row = int(wrong.nonzero()[0])
            what = "has no real token" if starts[row] == 0 else "has holes"
            raise UserError(
                f"attention_mask {what} in row {row}; only padding on the right or on the left is supported: "
                "one run of ones in every row."
            )
        positions = (mask.cumsum(1) - 1)[mask]
        packed = cls(_offsets(lengths), positions, lengths)
        return (packed, *(values[mask] for values in padded))

    @property
    def batch(self) -> int:
        """Number of sequences."""
        return self.cu_seqlens.numel() - 1

    @property
    def tokens(self) -> int:
        """Number of alive tokens over all sequences."""
        return self.positions.numel()

    @cached_property
    def lengths(self) -> Tensor:
        """int64 [batch]: alive tokens of each sequence."""
        return self.cu_seqlens.diff().long()

    @cached_property
    def sequence(self) -> Tensor:
        """int64 [tokens]: the sequence each token belongs to."""
        rows = torch.arange(self.batch, device=self.positions.device)
        return rows.repeat_interleave(self.lengths, output_size=self.tokens)

    def ends(self, first: int, last: int) -> Tensor:
        """bool [tokens]: whether each is among the first or the last so many of its original sequence."""
        found = self.positions < first
        if last:
            found = found | (self.positions >= (self.original_lengths - last)[self.sequence])
        return found

    def sum(self, values: Tensor) -> Tensor:
        """Sum ``[tokens, ...]`` over each sequence: ``[batch, ...]``. Differentiable."""
        out = values.new_zeros(self.batch, *values.shape[1:])
        return out.index_add(0, self.sequence, values)

    def keep(self, keep: Tensor) -> PackedBatch:
        """Drop tokens for good.

        Parameters
        ----------
        keep : bool tensor [tokens]
            True at the survivors.
        """
        return self.at(keep.nonzero().squeeze(1))

    def at(self, survivors: Tensor) -> PackedBatch:
        """The tokens at these places alone.

        Parameters
        ----------
        survivors : int64 tensor [survivors]
            In order.
        """
        starts = torch.searchsorted(survivors, self.cu_seqlens, out_int32=True)
        positions = self.positions.index_select(0, survivors)
        return PackedBatch(starts, positions, self.original_lengths)

    def first_tokens(self, values: Tensor) -> Tensor:
        """Values of each sequence's first alive token ([CLS]): ``[tokens, ...]`` to ``[batch, ...]``."""
        return values[self.cu_seqlens[:-1]]

    def last_tokens(self, values: Tensor) -> Tensor:
        """Values of each sequence's last alive token: ``[tokens, ...]`` to ``[batch, ...]``."""
        return values[self.cu_seqlens[1:] - 1]

    def mean(self, values: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean of ``[tokens, dim]`` over each sequence's alive tokens, weighted by `weight` ``[tokens]``."""
        exact = torch.promote_types(values.dtype, torch.float32)  # bfloat16 sums stop growing at 256
        weight = self.positions.new_ones(self.tokens, dtype=exact) if weight is None else weight.to(exact)
        mean = self.sum(values.to(exact) * weight[:, None]) / self.sum(weight)[:, None]
        return mean.to(values.dtype)

    def to_padded(self, values: Tensor, fill: float = 0.0) -> tuple[Tensor, Tensor]:
        """Pad on the right: ``[tokens, ...]`` to values ``[batch, longest, ...]`` and a bool mask."""
        places = torch.arange(int(self.lengths.max()), device=values.device)
        mask = places < self.lengths[:, None]
        padded = values.new_full((*mask.shape, *values.shape[1:]), fill)
        padded[mask] = values
        return padded, mask


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(torch.int32)
