"""Figures: what they show, read from their axes; and nothing global is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from thresher.reports import BenchRow
from thresher.show.figures import bench_figure, kept_figure, save, training_figure

HISTORY = [
    {"step": 10, "loss": 0.7, "stage": "soft", "flops_ratio": 0.9, "target": 0.8, "temperature": 1.0},
    {"step": 10, "eval_quality": 88.0, "eval_flops_ratio": 0.95},
    {"step": 20, "loss": 0.6, "stage": "soft", "flops_ratio": 0.7, "target": 0.6},
    {"step": 30, "loss": 0.5, "stage": "hard", "flops_ratio": 0.6, "target": None},
    {"step": 40, "loss": 0.4, "stage": "hard", "flops_ratio": 0.5, "target": 0.5},
    {"step": 40, "eval_quality": 90.0, "eval_flops_ratio": 0.55},
    {"step": 40, "train_runtime": 12.5},
]
NAN = float("nan")


def curves(axes) -> dict[str, list[tuple[float, float]]]:
    """The points of each labelled line; of one across the panel, its heights."""
    return {line.get_label(): [tuple(map(float, p)) for p in line.get_xydata()] for line in axes.get_lines()}


def row(name: str = "thresher torch, pruned", kind: str = "pruned", rate: float = 2.0) -> BenchRow:
    return BenchRow(
        engine="torch",
        precision="fp32",
        kind=kind,
        name=name,
        texts_per_second=rate,
        slowest=rate - 1,
        fastest=rate + 2,
        tokens_per_second=1.0,
        p50_ms=1.0,
        p95_ms=1.0,
        times_same_precision=None,
        times_any_precision=None,
    )


def test_training_figure_shows_quality_and_flops_over_the_steps() -> None:
    quality, ratio = training_figure(HISTORY, 91.0, metric="accuracy, %").axes
    assert quality.get_ylabel() == "accuracy, %"
    found = curves(quality)
    assert found["held out"] == [(10, 88), (40, 90)]
    assert {y for _, y in found["base"]} == {91.0}
    found = curves(ratio)
    assert found["training batches"] == [(10, 0.9), (20, 0.7), (30, 0.6), (40, 0.5)]
    assert found["held out"] == [(10, 0.95), (40, 0.55)]
    assert found["target"] == [(10, 0.8), (20, 0.6), (40, 0.5)]
    assert [text.get_text() for text in quality.texts] == ["soft stage", "hard stage"]
    spans = [(float(p.get_x()), float(p.get_x() + p.get_width())) for p in quality.patches]
    assert spans == [(0, 20), (20, 40)]
    assert "base" not in curves(training_figure(HISTORY).axes[0])


@pytest.mark.parametrize("history", [HISTORY[:1], HISTORY[1:2], [{"epoch": 1.0}], []])
def test_a_panel_without_points_says_so(history: list[dict]) -> None:
    for axes in training_figure(history).axes:
        points = sum(len(line) for line in curves(axes).values())
        assert ("nothing measured" in [text.get_text() for text in axes.texts]) == (points == 0)


@pytest.mark.parametrize("layers", [0, 1, 24])
def test_kept_figure_has_a_bar_and_a_number_for_each_layer(layers: int) -> None:
    share = [1 - layer / 24 for layer in range(layers)]
    (axes,) = kept_figure(share, [0.5] * layers, title="Tokens <kept> & dropped").axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == [1.0] * layers + share
    assert [text.get_text() for text in axes.texts] == [f"{value:.0%}" for value in share]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == [f"{layer + 1}\n0.50" for layer in range(layers)]
    assert axes.get_title(loc="left") == "Tokens <kept> & dropped"


def test_bench_figure_has_a_bar_for_each_engine_with_its_spread() -> None:
    rows = [row("transformers, padded", "padded", 1.5), row("thresher torch, pruned", "pruned", 4.0)]
    (axes,) = bench_figure(rows).axes
    assert [bar.get_width() for bar in axes.patches] == [1.5, 4.0]
    names = {
        tick: label.get_text() for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    }
    assert names == {1: "transformers, padded, fp32", 0: "thresher torch, pruned, fp32"}
    (spreads,) = (some for some in axes.collections if len(some.get_segments()) == 2)
    assert [segment[:, 0].tolist() for segment in spreads.get_segments()] == [[0.5, 3.5], [3.0, 6.0]]
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[0] != colours[1]  # ours stand out


def test_figures_are_written_in_the_format_of_the_suffix(tmp_path: Path) -> None:
    save(kept_figure([0.5]), tmp_path / "new" / "kept.png")
    assert (tmp_path / "new" / "kept.png").read_bytes().startswith(b"\x89PNG")
    save(training_figure(HISTORY), str(tmp_path / "training.svg"))
    assert "</svg>" in (tmp_path / "training.svg").read_text()


def test_nothing_is_read_as_a_formula(tmp_path: Path) -> None:
    r"""Between two dollars matplotlib reads TeX, and fails where it is none."""
    odd = r"o/$\nothing$"
    figures = (
        kept_figure([0.5], title=odd),
        training_figure(HISTORY, metric=odd),
        bench_figure([row(odd)], odd),
    )
    for place, figure in enumerate(figures):
        save(figure, tmp_path / f"{place}.svg")
    said = [text.get_text() for figure in figures for axes in figure.axes for text in axes.get_yticklabels()]
    assert f"{odd}, fp32" in said


def test_what_is_missing_does_not_break_a_figure(tmp_path: Path) -> None:
    kept = kept_figure([0.5, NAN, None], [NAN, None, 0.1])
    assert [text.get_text() for text in kept.axes[0].texts] == ["50%", "-", "-"]
    figures = kept, training_figure([{"step": 1, "eval_quality": NAN, "flops_ratio": NAN}], NAN)
    for place, figure in enumerate((*figures, bench_figure([row(rate=np.nan)]))):
        save(figure, tmp_path / f"{place}.png")


def test_pyplot_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from thresher.show.figures import kept_figure, save, training_figure\n"
        f"save(kept_figure([0.5]), {str(tmp_path / 'a.png')!r}); training_figure([])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
