"""Figures of a training run, of what a model keeps, and of a benchmark: drawn, and then saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which keeps global state and may look for a display
from matplotlib.ticker import MaxNLocator, PercentFormatter

from thresher.files.atomic import replacing
from thresher.reports import BenchRow
from thresher.show.wording import known, number, rate_text

INK, QUIET, PALE = "#222222", "#767676", "#e6e6e6"
AMBER, TEAL = "#cc7800", "#188696"
STAGES = {"soft": "#fbf3e4", "hard": "#eaf4f5"}  # behind the curves

History = Sequence[dict[str, Any]]


def training_figure(history: History, base_quality: float | None = None, metric: str = "quality") -> Figure:
    """Draw quality and FLOPs ratio over the steps of a training run.

    Parameters
    ----------
    history : sequence of dict
        Entries with ``step`` and any of ``flops_ratio``, ``target`` and ``stage`` (of the training
        batches), ``eval_quality`` and ``eval_flops_ratio`` (held out). Others are passed over.
    base_quality : float, optional
        Drawn as a line to compare with.
    metric : str
        What quality is, for the axis: "accuracy, %", say.
    """
    figure = Figure(figsize=(7.0, 5.2), layout="constrained")
    quality, ratio = figure.subplots(2, sharex=True)
    for axes in (quality, ratio):
        _plain(axes)
        for stage, start, end in _stages(history):
            axes.axvspan(start, end, color=STAGES.get(stage, "white"), linewidth=0, zorder=0)
    for stage, start, end in _stages(history):
        _above(quality, (start + end) / 2, f"{stage} stage")

    held_out: dict[str, Any] = {"marker": "o", "markersize": 4, "label": "held out"}
    quality.plot(*_curve(history, "eval_quality"), color=AMBER, **held_out)
    if base_quality is not None:
        quality.axhline(base_quality, color=QUIET, linewidth=1, linestyle="--", label="base")
    quality.set_ylabel(metric, parse_math=False)

    ratio.plot(*_curve(history, "flops_ratio"), color=TEAL, linewidth=1, alpha=0.5, label="training batches")
    ratio.plot(*_curve(history, "eval_flops_ratio"), color=TEAL, **held_out)
    ratio.plot(*_curve(history, "target"), color=QUIET, linewidth=1, linestyle="--", label="target")
    ratio.set_ylabel("FLOPs, % of base")
    ratio.set_xlabel("step")
    ratio.set_ylim(0, 1.05)
    ratio.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    ratio.xaxis.set_major_locator(MaxNLocator(integer=True))
    steps = [entry["step"] for entry in history if entry.get("step") is not None]
    ratio.set_xlim(0, 1.01 * max(steps, default=1))  # room for the last marker
    for axes in (quality, ratio):
        _legend(axes)
    figure.align_ylabels()
    return figure


def kept_figure(
    kept_share: Sequence[float],
    thresholds: Sequence[float] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw the share of all tokens that is alive after each layer.

    Parameters
    ----------
    kept_share : sequence of float [layers]
        From 0 to 1.
    thresholds : sequence of float [layers], optional
        Written under each layer, in fair shares.
    title : str, optional
    """
    layers = range(1, len(kept_share) + 1)
    figure = Figure(figsize=(max(5.0, 0.55 * len(kept_share) + 1.2), 3.4), layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    axes.bar(layers, [1.0] * len(kept_share), width=0.8, color=PALE)  # what there was to keep
    heights = [share if known(share) else 0.0 for share in kept_share]
    axes.bar(layers, heights, width=0.8, color=AMBER)
    for layer, share, height in zip(layers, kept_share, heights, strict=True):
        axes.annotate(
            number(share, ".0%"),
            (layer, height),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK,
        )
    names = [str(layer) for layer in layers]
    if thresholds is not None:
        names = [f"{name}\n{number(value)}" for name, value in zip(names, thresholds, strict=True)]
    axes.set_xticks(list(layers), names)
    axes.set_xlabel("layer" if thresholds is None else "layer, and its threshold in fair shares")
    axes.set_ylabel("share of tokens kept")
    axes.set_xlim(0.4, max(1, len(kept_share)) + 0.6)
    axes.set_ylim(0, 1.08)
    # Every bar has its number, so there is no scale to read.
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    if title:
        axes.set_title(title, fontsize=10, color=INK, loc="left", parse_math=False)
    return figure


def bench_figure(rows: Sequence[BenchRow], title: str | None = None) -> Figure:
    """Draw texts per second of every contender of a benchmark, with the spread over its rounds.

    Parameters
    ----------
    rows : sequence of BenchRow
    title : str, optional
    """
    figure = Figure(figsize=(7.0, 0.8 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    places = range(len(rows))[::-1]
    rates = [row.texts_per_second for row in rows]
    below = [row.texts_per_second - row.slowest for row in rows]
    above = [row.fastest - row.texts_per_second for row in rows]
    colours = {"packed": TEAL, "pruned": AMBER}
    axes.barh(places, rates, color=[colours.get(row.kind, PALE) for row in rows], height=0.7)
    axes.errorbar(rates, places, xerr=[below, above], fmt="none", ecolor=QUIET, elinewidth=1)
    for place, row in zip(places, rows, strict=True):
        at = (row.fastest, place)
        axes.annotate(f" {rate_text(row.texts_per_second)}", at, va="center", fontsize=8, color=INK)
    names = [f"{row.name}, {row.precision}" for row in rows]
    axes.set_yticks(list(places), names, parse_math=False)
    axes.set_xlabel("texts per second")
    axes.grid(visible=False)
    axes.margins(x=0.08)
    if title:
        axes.set_title(title, fontsize=10, color=INK, loc="left", parse_math=False)
    return figure


def _curve(history: History, key: str) -> tuple[list[float], list[float]]:
    """Steps and values of the entries that have `key`."""
    points = [(entry["step"], entry[key]) for entry in history if entry.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _stages(history: History) -> list[tuple[str, float, float]]:
    """Each stage with its first and last step. One ends at its last entry, where the next begins."""
    stages: list[tuple[str, float, float]] = []
    for entry in history:
        name, step = entry.get("stage"), entry.get("step")
        if name is None or step is None:
            continue
        if stages and stages[-1][0] == name:
            stages[-1] = (name, stages[-1][1], step)
        else:
            stages.append((name, stages[-1][2] if stages else 0, step))
    return stages


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.grid(axis="y", color="white", linewidth=1)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def _above(axes: Axes, x: float, text: str) -> None:
    """Write `text` above the panel, at `x` in data."""
    axes.annotate(
        text,
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=QUIET,
        parse_math=False,
    )


def _legend(axes: Axes) -> None:
    """Name the curves that have points; where none has, say so."""
    lines = [line for line in axes.get_lines() if np.size(line.get_xdata())]
    if lines:
        axes.legend(handles=lines, loc="best", fontsize=9, frameon=False, labelcolor=INK)
    else:
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center", color=QUIET)
        axes.set_yticks([])


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure, whole or not at all. The file's suffix (.png, .svg, .pdf) is the format."""
    with replacing(Path(path)) as partial:
        figure.savefig(partial, dpi=150)
