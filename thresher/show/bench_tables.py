"""Reports of the benchmark as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.table import Table

from thresher.reports import Bench
from thresher.show.wording import count, known, literal, number, rate_text

KINDS = (
    "padded: batches in the order of the file; sorted: batches of near lengths; packed: our engine, no "
    "padding, nothing dropped; pruned: as trained. p50, p95: half of the batches took this long at most, and "
    "95 % of them."
)


def bench_table(report: Bench) -> Table:
    """One contender a row: quality, rates, latencies, and its ratio to the fastest dense rival."""
    rows, lengths, texts = report.rows, report.lengths, report.data.texts
    where = count(report.threads, "thread") if report.device == "cpu" else report.device
    title = (
        f"{report.model}: {count(texts, 'text')} of {lengths.shortest} to {lengths.longest} tokens, "
        f"mean {number(lengths.mean, '.0f')}; batches of {report.batch}, {where}"
    )
    table = _table(title)
    metric = next(iter(rows[0].quality or ()), None) if rows else None
    columns = [
        "engine",
        "precision",
        *([metric] if metric else []),
        "texts/s",
        "slowest-\nfastest",
        "tokens/s",
    ]
    columns += ["p50\nms", "p95\nms", "speed-up\n(same)", "speed-up\n(any)"]
    for name in [*columns, "of what\nFLOPs\npromise"]:
        _add_column(table, name)
    for row in rows:
        cells = [
            row.name.replace(",", ""),
            row.precision,
            *([number((row.quality or {}).get(metric))] if metric else []),
            rate_text(row.texts_per_second),
            f"{rate_text(row.slowest)}-{rate_text(row.fastest)}",
            number(row.tokens_per_second, ".0f"),
            number(row.p50_ms, ".1f"),
            number(row.p95_ms, ".1f"),
            number(row.times_same_precision, ".2f", " x"),
            number(row.times_any_precision, ".2f", " x"),
            number(row.realised, ".0%"),
        ]
        table.add_row(*map(literal, cells), style="bold" if row.kind == "pruned" else None)
    table.caption = literal("\n".join([*_notes(report), *_skipped(report.skipped)]), "table.caption")
    return table


def _notes(report: Bench) -> list[str]:
    """What the columns and kinds mean."""
    ratio = report.flops_ratio
    promise = number(1 / ratio, ".2f", " x") if known(ratio) and ratio else number(None)
    return [
        "speed-up: over the fastest dense engine that is not ours, in the same precision or in any; median "
        f"of {count(report.repeats, 'round')}, each of which runs every engine in turn.",
        f"of what FLOPs promise: the pruned model needs {number(ratio, '.3f')} of the FLOPs, which promises "
        f"{promise} the speed of packed; 100 % is all of that on the clock.",
        KINDS,
        f"{report.versions.get('processor', 'processor not noted')}; instructions of our C++: "
        f"{report.attention}; {count(report.threads, 'thread')} for every engine.",
    ]


def _skipped(skipped: dict[str, str]) -> list[str]:
    """One line a reason: the reason, and the engines that were left out for it."""
    reasons: dict[str, list[str]] = {}
    for name, why in skipped.items():
        reasons.setdefault(why, []).append(name)
    return [
        f"{why[:1].upper()}{why[1:]}: {_together(names)}"
        if why.startswith("not installed")
        else f"Skipped, {why}: {_together(names)}"
        for why, names in reasons.items()
    ]


def _together(names: Iterable[str]) -> str:
    """``["thresher torch, packed, fp32", "thresher torch, pruned, fp32"]`` as one of several kinds."""
    precisions: dict[tuple[str, str], list[str]] = {}
    for name in names:
        engine, _, rest = name.partition(", ")
        kind, _, precision = rest.partition(", ")
        precisions.setdefault((engine, kind), []).append(precision)
    kinds: dict[tuple[str, str], list[str]] = {}
    for (engine, kind), some in precisions.items():
        kinds.setdefault((engine, "/".join(some)), []).append(kind)
    return ", ".join(
        f"{engine} {'/'.join(some)}" + (f" in {precision}" if precision else "")
        for (engine, precision), some in kinds.items()
    )


def fresh_table(report: Bench) -> Table:
    """One contender a row, each in a fresh process: cold start and memory; no row where none was measured."""
    table = _table("In a fresh process")
    there = "" if report.device == "cpu" else f" on {report.device}"
    caption = (
        "cold start: from the start of the process, with all that it imports, to the answer to one text, by "
        "files that were converted before (our own OpenVINO converts anew); resident: MiB in memory then; "
        f"peak: MiB more while all texts run{there}. OpenVINO and ONNX Runtime run without PyTorch."
    )
    table.caption = literal(caption, "table.caption")
    for name in ("engine", "precision", "cold start, s", "resident, MiB", "peak, MiB"):
        _add_column(table, name)
    for row in report.rows:
        found = (row.cold_seconds, row.resident_mb, row.peak_mb)
        if any(map(known, found)):
            cells = [number(x, form) for x, form in zip(found, (".1f", ".0f", ".0f"), strict=True)]
            table.add_row(*map(literal, [row.name.replace(",", ""), row.precision, *cells]))
    return table


def profile_table(report: Bench) -> Table:
    """One of our engines a row, one kind of work a column: shares of the time, and the linears' rate."""
    rows = [(row, row.profile) for row in report.rows if row.profile is not None]
    table = _table("Where the time goes")
    caption = (
        "GFLOP/s: of the linear layers, in the native engine with the norms between them; of library: their "
        "rate over that of one large matrix product by PyTorch; of peak: over what this processor multiplies "
        "at most"
    )
    table.caption = literal(caption, "table.caption")
    for name in ["engine", "precision", *(rows[0][1].shares if rows else ())]:
        _add_column(table, name)
    for name in ("GFLOP/s", "of library", "of peak"):
        _add_column(table, name)
    for row, profile in rows:
        rate = profile.linear_rate
        limits = (rates.get(row.precision) for rates in (report.matmul_rate, report.peak_rate))
        cells = [
            row.name.replace(",", ""),
            row.precision,
            *(number(share, ".0%") for share in profile.shares.values()),
            number(rate / 1e9 if known(rate) else None, ".0f"),
            *(
                number(rate / most if known(rate) and known(most) and most else None, ".0%")
                for most in limits
            ),
        ]
        table.add_row(*map(literal, cells))
    return table


def _table(title: str) -> Table:
    return Table(
        title=literal(title, "table.title"),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption_justify="left",
    )


def _add_column(table: Table, name: str) -> None:
    """A number is never cut; the names of engines fold."""
    if name == "engine":
        table.add_column(literal(name), overflow="fold", min_width=12)
    else:
        table.add_column(literal(name), justify="left" if name == "precision" else "right", no_wrap=True)
