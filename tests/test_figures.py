"""Figures: files are written, and nothing global is touched."""

import subprocess
import sys
from pathlib import Path

import pytest

from thresher.show.figures import _curve, _stages, bench_figure, kept_figure, training_figure

HISTORY = [
    {"step": 10, "loss": 0.7, "stage": "soft", "flops_ratio": 0.9, "target": 0.8, "temperature": 1.0},
    {"step": 10, "eval_quality": 88.0, "eval_flops_ratio": 0.95},
    {"step": 20, "loss": 0.6, "stage": "soft", "flops_ratio": 0.7, "target": 0.6},
    {"step": 30, "loss": 0.5, "stage": "hard", "flops_ratio": 0.6, "target": None},
    {"step": 40, "loss": 0.4, "stage": "hard", "flops_ratio": 0.5, "target": 0.5},
    {"step": 40, "eval_quality": 90.0, "eval_flops_ratio": 0.55},
    {"step": 40, "train_runtime": 12.5},
]


@pytest.mark.parametrize("history", [HISTORY, HISTORY[:1], HISTORY[1:2], [{"epoch": 1.0}], []])
@pytest.mark.parametrize("base_quality", [None, 91.0])
def test_training_figure(tmp_path: Path, history: list[dict], base_quality: float | None) -> None:
    path = tmp_path / "new/training.png"
    training_figure(history, path, base_quality, metric="accuracy, %")
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("layers", [0, 1, 24])
def test_kept_figure(tmp_path: Path, layers: int) -> None:
    share = [1 - layer / 24 for layer in range(layers)]
    kept_figure(share, tmp_path / "kept.png")
    assert (tmp_path / "kept.png").read_bytes().startswith(b"\x89PNG")
    kept_figure(share, str(tmp_path / "kept.svg"), [0.5] * layers, title="Tokens <kept> & dropped")
    assert "</svg>" in (tmp_path / "kept.svg").read_text()


def test_nothing_is_read_as_a_formula(tmp_path: Path) -> None:
    r"""Between two dollars matplotlib reads TeX, and fails where it is none."""
    odd = r"o/$\nothing$"
    kept_figure([0.5], tmp_path / "kept.svg", title=odd)
    training_figure(HISTORY, tmp_path / "training.svg", metric=odd)
    row = {"name": odd, "precision": "fp32", "kind": "pruned"}
    row |= {"texts_per_second": 2.0, "slowest": 1.0, "fastest": 3.0}
    bench_figure([row], tmp_path / "bench.svg", title=odd)
    assert len(list(tmp_path.iterdir())) == 3


def test_what_is_missing_does_not_break_a_figure(tmp_path: Path) -> None:
    nan = float("nan")
    kept_figure([0.5, nan, None], tmp_path / "kept.png", [nan, None, 0.1])
    training_figure([{"step": 1, "eval_quality": nan, "flops_ratio": nan}], tmp_path / "training.png", nan)
    row = {"name": "thresher", "precision": "fp32", "kind": "pruned"}
    bench_figure(
        [row | dict.fromkeys(("texts_per_second", "slowest", "fastest"), nan)], tmp_path / "bench.png"
    )
    assert len(list(tmp_path.iterdir())) == 3


def test_curves_and_stages() -> None:
    assert _curve(HISTORY, "target") == ([10, 20, 40], [0.8, 0.6, 0.5])
    assert _curve(HISTORY, "eval_quality") == ([10, 40], [88.0, 90.0])
    assert _stages(HISTORY) == [("soft", 0, 20), ("hard", 20, 40)]


def test_pyplot_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from thresher.show.figures import kept_figure, training_figure\n"
        f"kept_figure([0.5], {str(tmp_path / 'a.png')!r}); training_figure([], {str(tmp_path / 'b.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
