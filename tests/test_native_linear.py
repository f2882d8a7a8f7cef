"""Linear layers by native code, with all instructions that the machine has, against float64."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

from thresher import native
from thresher.bench import profile
from thresher.engines.layers import NativeLinear
from thresher.engines.layers.int8 import quantise
from thresher.engines.layers.native import DTYPES
from thresher.families import GeluLinear

ROWS_IN = [
    ("fp32", torch.float32),
    ("bf16", torch.bfloat16),
    ("int8", torch.bfloat16),
    ("int8", torch.float32),
]
pytestmark = pytest.mark.usefixtures("instructions")


@pytest.fixture(params=["fp32", "bf16", "int8"])
def precision(request, instructions):
    return having(request.param)


def having(precision: str) -> str:
    if not native.has_linears(precision):
        pytest.skip(f"these instructions have no {precision}")
    return precision


def layer(
    inputs: int = 96, outputs: int = 80, precision: str = "fp32", gelu: bool = False, bias: bool = True
) -> tuple[torch.nn.Linear, NativeLinear]:
    linear = torch.nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    return linear, NativeLinear(GeluLinear.of(linear) if gelu else linear, precision)


def reference(linear: torch.nn.Linear, values: torch.Tensor, precision: str, gelu: bool) -> torch.Tensor:
    if precision == "int8":
        sizes = linear.weight.abs().amax(1, keepdim=True) / 127
        weight = (linear.weight / sizes).round().double() * sizes
        whole, row_sizes = quantise(values.flatten(0, -2))
        values = (whole.double() * row_sizes[:, None]).view_as(values)
    else:
        weight = linear.weight.to(DTYPES[precision])
    out = values.double() @ weight.double().t()
    out = out if linear.bias is None else out + linear.bias
    return F.gelu(out) if gelu else out


@pytest.mark.parametrize(("precision", "dtype"), ROWS_IN)
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(0, 8, 8), (1, 1, 1), (5, 70, 33), (16, 64, 32), (17, 65, 31), (33, 100, 48), (300, 384, 1152)],
)
@torch.inference_mode()
def test_equals_the_product_of_what_was_rounded(rows, inputs, outputs, precision, dtype):
    gelu = rows % 2 == 0
    linear, made = layer(inputs, outputs, having(precision), gelu, bias=rows != 5)
    wide = torch.randn(2, rows, inputs + 3).to(dtype)
    for values in (wide[..., :inputs], wide.transpose(0, 1)[..., 3:]):
        found = made(values)
        expected = reference(linear, values, precision, gelu)
        assert (found.shape, found.dtype) == (expected.shape, dtype)
        rtol = 2**-8 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(found.double(), expected, atol=3e-5, rtol=rtol)


@pytest.mark.parametrize(("rows", "outputs"), [(3, 1120), (50, 64), (700, 1536)])
@torch.inference_mode()
def test_a_row_depends_on_neither_the_others_nor_the_threads(rows, outputs, precision, monkeypatch):
    _, made = layer(384, outputs, precision, gelu=True)
    values = torch.randn(rows, 384, dtype=DTYPES.get(precision, torch.bfloat16))
    alone = torch.cat([made(values[i : i + 1]) for i in range(rows)])
    for team in (native.team, None):
        monkeypatch.setattr(native, "team", team)
        for threads in (1, 2, 5):
            monkeypatch.setattr(native, "threads", lambda *_, count=threads: count)
            assert torch.equal(made(values), alone)


def test_rows_of_no_numbers_stay_so_and_harm_no_others(precision):
    _, made = layer(precision=precision)
    values = torch.randn(20, 96, dtype=DTYPES.get(precision, torch.bfloat16))
    expected = made(values)
    values[7, 5] = float("nan")
    found = made(values)
    assert found[7].isnan().all()
    rest = torch.arange(20) != 7
    assert torch.equal(found[rest], expected[rest])


@pytest.mark.parametrize(
    "change", [lambda x: x.to("cpu"), copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_is_the_same_when_copied(precision, change):
    _, made = layer(precision=precision)
    values = torch.randn(9, 96, dtype=DTYPES.get(precision, torch.bfloat16))
    assert torch.equal(change(made)(values), made(values))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_goes_on_as_a_plain_layer_where_it_is_moved(precision, dtype):
    linear, made = layer(precision=precision, gelu=True)
    moved = made.to(dtype)
    values = torch.randn(9, 96, dtype=dtype)
    expected = F.gelu(F.linear(values.double(), linear.weight.double(), linear.bias.double()))
    found = moved(values)
    assert found.dtype == dtype
    assert (found - expected).abs().max() < 0.05
    assert made.to("meta")(values.to("meta")).shape == (9, 80)


def test_gradients_and_autocast(precision):
    linear, made = layer(precision=precision)
    values = torch.randn(5, 96)
    with torch.autocast("cpu", torch.bfloat16):
        assert (made(values) - linear(values)).abs().max() < 0.05
    values.requires_grad_()
    (expected,) = torch.autograd.grad(linear(values).sum(), values)
    (found,) = torch.autograd.grad(made(values).sum(), values)
    assert (found - expected).abs().max() < 0.05


@torch.inference_mode()
def test_the_profile_sees_it(precision, monkeypatch):
    _, made = layer(precision=precision)
    values = torch.randn(500, 96, dtype=DTYPES.get(precision, torch.bfloat16))
    clock = iter([0.0, 8.0])
    monkeypatch.setattr(profile.time, "perf_counter", lambda: next(clock))
    found = profile.parts(lambda: [made(values) for _ in range(20)])
    spent = 8.0 * found.shares[profile.LINEARS]
    assert found.linear_rate * spent == pytest.approx(20 * 2 * 500 * 96 * 80)


def test_the_peak_is_of_what_there_is(instructions):
    for precision in ("fp32", "bf16", "int8"):
        found = native.peak(precision, seconds=0.001)
        in_tiles = instructions == "amx" and precision != "fp32"
        assert (found is None) == (in_tiles or not native.has_linears(precision))
        assert found is None or found > 1e8
