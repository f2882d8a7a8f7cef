"""What engines take on the clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Texts per second of one engine: median, slowest and fastest round, and with the time for tokenizing.
    Where passages are ranked, a text is a pair, and `query_ms` are the milliseconds that a query with 100
    passages takes, with tokenizing."""

    texts_per_second: float
    slowest: float
    fastest: float
    with_tokenizing: float
    query_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Engines side by side.

    Attributes
    ----------
    transformers, packed, thresher : Rates
        Dense as transformers runs it, dense and packed by us, and pruned.
    ratio, packed_ratio, pruning_ratio : float
        Medians of paired ratios: pruned over transformers, packed over transformers, pruned over packed.
    ratio_spread : list of float
        Least and largest `ratio` of a round.
    texts, batch, repeats, threads : int
    device, dtype, precision : str
        Where it ran; the numbers of the dense model; the precision of ours.
    """

    transformers: Rates
    packed: Rates
    thresher: Rates
    ratio: float
    ratio_spread: list[float]
    packed_ratio: float
    pruning_ratio: float
    texts: int
    batch: int
    repeats: int
    threads: int
    device: str
    dtype: str
    precision: str
