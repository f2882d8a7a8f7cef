"""What a benchmark came to."""

from __future__ import annotations

from dataclasses import dataclass, field

from thresher.reports.base import Quality, Report


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of an engine goes: share of each kind of work, and FLOP/s of its linear layers."""

    shares: dict[str, float]
    linear_rate: float | None


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One engine on the clock.

    Attributes
    ----------
    engine, precision, kind, name : str
        As of `thresher.bench.contenders.Contender`.
    texts_per_second, slowest, fastest, tokens_per_second : float
        Over whole rounds: the median, the slowest, the fastest, and tokens by the median.
    p50_ms, p95_ms : float
        Milliseconds of a batch.
    times_same_precision, times_any_precision : float, or None
        How many times as fast as the fastest dense rival, in the same precision and in any.
    realised : float, or None
        Of the pruned model: which share of the saved FLOPs shows on the clock.
    quality : Quality, or None
    cold_seconds : float, or None
        From the start of a fresh process to the answer to one text.
    resident_mb, peak_mb : float, or None
        MiB in that process's memory then, and how much more while all texts are run.
    profile : Profile, or None
    """

    engine: str
    precision: str
    kind: str
    name: str
    texts_per_second: float
    slowest: float
    fastest: float
    tokens_per_second: float
    p50_ms: float
    p95_ms: float
    times_same_precision: float | None
    times_any_precision: float | None
    realised: float | None = None
    quality: Quality | None = None
    cold_seconds: float | None = None
    resident_mb: float | None = None
    peak_mb: float | None = None
    profile: Profile | None = None


@dataclass(frozen=True, kw_only=True)
class BenchData:
    """The texts that were timed; `max_length` in tokens."""

    eval: str
    text: list[str]
    label: str | None
    texts: int
    max_length: int


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens of the texts."""

    mean: float
    shortest: int
    longest: int


@dataclass(frozen=True, kw_only=True)
class CalibratedOn:
    """Texts that int8 engines were calibrated on, and how many of these were timed as well."""

    texts: int
    also_timed: int


@dataclass(frozen=True, kw_only=True)
class Bench(Report):
    """What `bench` came to.

    Attributes
    ----------
    flops_ratio : float
        Of the pruned model.
    matmul_rate : dict of str to float
        FLOP/s of one large matrix product of PyTorch, by precision.
    peak_rate : dict of str to float
        FLOP/s of multiply-adds in registers, by precision: what no product can exceed.
    rows : list of BenchRow
    skipped : dict of str to str
        Why an engine was left out.
    attention : str
        Instructions of our C++, or "torch".
    batch, repeats, threads : int
    stopped : bool
        Whether Ctrl-C ended the run; the rows are of the rounds that were done.
    device : str
        Where models ran: "cpu", or the name of a GPU.
    """

    command = "bench"

    data: BenchData
    lengths: Lengths
    flops_ratio: float
    matmul_rate: dict[str, float]
    rows: list[BenchRow]
    skipped: dict[str, str]
    calibration: CalibratedOn
    attention: str
    batch: int
    repeats: int
    stopped: bool
    threads: int
    peak_rate: dict[str, float] = field(default_factory=dict)  # which older reports lack, as the device
    device: str = "cpu"
