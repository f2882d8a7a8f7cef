"""Where the time of a run goes, by kind of work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from thresher.engines.layers.native import OPERATION
from thresher.engines.native import STAGE_OPERATION as STAGE
from thresher.reports import Profile

LINEARS, STAGES = "linears", "OpenVINO"
# Operations by the beginnings of their names in the profiler.
PARTS: dict[str, tuple[str, ...]] = {
    LINEARS: (
        "aten::addmm",
        "aten::mm",
        "aten::_int_mm",
        "mkldnn::",
        "onednn::",
        OPERATION,
        STAGE,  # with the norms between the linear layers
        "thresher::quantise",
        "thresher::finish",
    ),
    STAGES: ("openvino::",),
    "attention": (
        "thresher::attend",
        "aten::bmm",
        "aten::baddbmm",
        "aten::_softmax",
        "aten::_scaled_dot_product",
        "aten::_flash_attention",
    ),
    "norms": (  # and activations
        "aten::native_layer_norm",
        "aten::gelu",
        "aten::silu",
        "aten::tanh",
    ),
    "compaction": ("aten::index", "aten::nonzero", "aten::searchsorted"),
    "copies": ("aten::copy_", "aten::clone", "aten::cat"),
}
ELSE = "other"  # in none of these
PYTHON = "Python"  # in no operation


@torch.inference_mode()
def parts(run: Callable[[], object]) -> Profile:
    """Split the time of `run` into kinds of work.

    Returns
    -------
    Profile
        Shares of each part in a run under the profiler. The rate of the linear layers is None where an
        engine that shows us only whole stages ran them.
    """
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        run()
    wall = time.perf_counter() - start
    spent = dict.fromkeys((*PARTS, ELSE), 0.0)
    flops = 0
    for event in profiler.key_averages(group_by_input_shape=True):
        seconds = event.self_cpu_time_total / 1e6
        part = next((part for part, prefixes in PARTS.items() if event.key.startswith(prefixes)), ELSE)
        spent[part] += seconds
        if part == LINEARS:
            own = event.key.split()[1:] if event.key.startswith((OPERATION, STAGE)) else None
            one = 2 * math.prod(map(int, own)) if own else product_flops(event.input_shapes)
            flops += event.count * one
    spent[PYTHON] = max(0.0, wall - sum(spent.values()))
    return Profile(
        shares={part: seconds / wall for part, seconds in spent.items()},
        linear_rate=flops / spent[LINEARS] if flops and not spent[STAGES] else None,
    )


def product_flops(shapes: list[list[int]]) -> int:
    """FLOPs of rows ``[n, k]`` times weights, ``[k, m]`` or ``[m, k]``, among the shapes of inputs."""
    matrices = [shape for shape in shapes if len(shape) == 2]
    return 2 * matrices[0][0] * math.prod(matrices[1]) if len(matrices) > 1 else 0


@torch.inference_mode()
def matmul_rate(dtype: torch.dtype, size: int = 2048, repeats: int = 8, device: str = "cpu") -> float:
    """FLOP/s that the device reaches on one square matrix product; the best of `repeats`."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        (a @ b)[0, 0].item()  # which waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
