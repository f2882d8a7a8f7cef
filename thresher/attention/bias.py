"""What relative positions add to attention scores, whatever was dropped in between.

Original positions of two tokens tell their difference, a map tells the difference's entry, and a table, or
two tables of each token, the number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from thresher.packed import PackedBatch


class Entries:
    """Which entry of a table stands for which difference of positions: a map that grows when it must.

    Parameters
    ----------
    rule : callable
        From int64 differences ``[count]``, key less query, to the entries ``[count]``, as the architecture
        has it for texts of any length.
    """

    def __init__(self, rule: Callable[[Tensor], Tensor]):
        self.rule = rule
        self._map: Tensor | None = None

    def reaching(self, packed: PackedBatch) -> Tensor:
        """int64 [2 size - 1]: entries of the differences from ``1 - size`` to ``size - 1``, with a size that
        no text of the batch exceeds."""
        longest, device = max([1, *packed.original_lengths.tolist()]), packed.positions.device
        if self._map is None or len(self._map) < 2 * longest - 1 or self._map.device != device:
            size = 1 << (longest - 1).bit_length()
            self._map = self.rule(torch.arange(1 - size, size, device=device)).long()
        return self._map


class Bias(ABC):
    """Added to the scaled scores of one layer.

    Attributes
    ----------
    entries : int64 tensor [2 size - 1]
        As of `Entries.reaching`.
    """

    entries: Tensor

    def matrix(self, index: Tensor, positions: Tensor) -> Tensor:
        """The numbers for some sequences.

        Parameters
        ----------
        index : int64 tensor [b, n]
            Their tokens in the packed batch.
        positions : int64 tensor [b, n]
            The tokens' original positions.

        Returns
        -------
        tensor [b, heads, n, n]
            Queries, then keys. Differentiable.
        """
        differences = positions[:, None, :] - positions[:, :, None]
        return self._matrix(index, differences + len(self.entries) // 2)

    @abstractmethod
    def _matrix(self, index: Tensor, places: Tensor) -> Tensor:
        """As `matrix`, with places among `entries`: int64 ``[b, n, n]``."""


class TableBias(Bias):
    """A number for each head and entry, as in T5 and MPNet.

    Parameters
    ----------
    table : tensor [heads, entries]
    entries : int64 tensor
    """

    def __init__(self, table: Tensor, entries: Tensor):
        self.table, self.entries = table, entries

    def _matrix(self, index: Tensor, places: Tensor) -> Tensor:
        b, n, _ = places.shape
        numbers = self.table.index_select(1, self.entries).index_select(1, places.flatten())
        return numbers.view(-1, b, n, n).transpose(0, 1)


class TokenBias(Bias):
    """Numbers for each token and entry: of the query, of the key, or of both, as in DeBERTa.

    Parameters
    ----------
    query, key : tensors [tokens, heads, entries], or None
    entries : int64 tensor
    """

    def __init__(self, query: Tensor | None, key: Tensor | None, entries: Tensor):
        self.query, self.key, self.entries = query, key, entries

    def _matrix(self, index: Tensor, places: Tensor) -> Tensor:
        wanted = self.entries[places][:, None]  # [b, 1, n, n]
        parts = []
        for numbers, which in ((self.query, wanted), (self.key, wanted.transpose(-1, -2))):
            if numbers is not None:
                of_token = numbers[index].transpose(1, 2)  # [b, heads, n, entries]
                parts.append(of_token.gather(-1, which.expand(-1, of_token.shape[1], -1, -1)))
        if self.key is not None:
            parts[-1] = parts[-1].transpose(-1, -2)
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]
