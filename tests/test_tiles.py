"""Linear layers in tiles, against float64."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

from tests import tiny
from thresher import PruningConfig, native, prune
from thresher.bench import profile
from thresher.engines.layers import tiles
from thresher.engines.layers.int8 import quantise
from thresher.engines.layers.tiles import TileLinear
from thresher.families import GeluLinear

pytestmark = pytest.mark.skipif(not tiles.here(), reason="needs AMX and the native code")


def layer(
    inputs: int = 96, outputs: int = 80, int8: bool = False, gelu: bool = False, bias: bool = True
) -> tuple[torch.nn.Linear, TileLinear]:
    linear = torch.nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    return linear, TileLinear(GeluLinear.of(linear) if gelu else linear, int8)


def reference(linear: torch.nn.Linear, values: torch.Tensor, int8: bool, gelu: bool) -> torch.Tensor:
    if int8:
        sizes = linear.weight.abs().amax(1, keepdim=True) / 127
        weight = (linear.weight / sizes).round().double() * sizes
        whole, row_sizes = quantise(values.flatten(0, -2))
        values = (whole.double() * row_sizes[:, None]).view_as(values)
    else:
        weight = linear.weight.bfloat16()
    out = values.double() @ weight.double().t()
    out = out if linear.bias is None else out + linear.bias
    return F.gelu(out) if gelu else out


@pytest.mark.parametrize(("int8", "dtype"), [(0, torch.bfloat16), (1, torch.bfloat16), (1, torch.float32)])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(0, 8, 8), (1, 1, 1), (5, 70, 33), (16, 64, 32), (17, 65, 31), (33, 100, 48), (300, 384, 1152)],
)
@torch.inference_mode()
def test_equals_the_product_of_what_was_rounded(rows, inputs, outputs, int8, dtype):
    gelu = rows % 2 == 0
    linear, tiled = layer(inputs, outputs, bool(int8), gelu, bias=rows != 5)
    wide = torch.randn(2, rows, inputs + 3).to(dtype)
    for values in (wide[..., :inputs], wide.transpose(0, 1)[..., 3:]):
        found = tiled(values)
        expected = reference(linear, values, bool(int8), gelu)
        assert (found.shape, found.dtype) == (expected.shape, dtype)
        rtol = 2**-8 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(found.double(), expected, atol=3e-5, rtol=rtol)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("rows", "outputs"), [(3, 1120), (50, 64), (700, 1536)])
@torch.inference_mode()
def test_a_row_depends_on_neither_the_others_nor_the_threads(rows, outputs, int8, monkeypatch):
    _, tiled = layer(384, outputs, int8, gelu=True)
    values = torch.randn(rows, 384, dtype=torch.bfloat16)
    alone = torch.cat([tiled(values[i : i + 1]) for i in range(rows)])
    for team in (native.team, None):
        monkeypatch.setattr(native, "team", team)
        for threads in (1, 2, 5):
            monkeypatch.setattr(native, "threads", lambda *_, count=threads: count)
            assert torch.equal(tiled(values), alone)


@pytest.mark.parametrize("int8", [False, True])
def test_rows_of_no_numbers_stay_so_and_harm_no_others(int8):
    _, tiled = layer(int8=int8)
    values = torch.randn(20, 96, dtype=torch.bfloat16)
    expected = tiled(values)
    values[7, 5] = float("nan")
    found = tiled(values)
    assert found[7].isnan().all()
    rest = torch.arange(20) != 7
    assert torch.equal(found[rest], expected[rest])


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(
    "change", [lambda x: x.to("cpu"), copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_is_the_same_when_copied(int8, change):
    _, tiled = layer(int8=int8)
    values = torch.randn(9, 96, dtype=torch.bfloat16)
    assert torch.equal(change(tiled)(values), tiled(values))


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_goes_on_as_a_plain_layer_where_it_is_moved(int8, dtype):
    linear, tiled = layer(int8=int8, gelu=True)
    moved = tiled.to(dtype)
    values = torch.randn(9, 96, dtype=dtype)
    expected = F.gelu(F.linear(values.double(), linear.weight.double(), linear.bias.double()))
    found = moved(values)
    assert found.dtype == dtype
    assert (found - expected).abs().max() < 0.05
    assert tiled.to("meta")(values.to("meta")).shape == (9, 80)


@pytest.mark.parametrize("int8", [False, True])
def test_gradients_and_autocast(int8):
    linear, tiled = layer(int8=int8)
    values = torch.randn(5, 96)
    with torch.autocast("cpu", torch.bfloat16):
        assert (tiled(values) - linear(values)).abs().max() < 0.05
    values.requires_grad_()
    (expected,) = torch.autograd.grad(linear(values).sum(), values)
    (found,) = torch.autograd.grad(tiled(values).sum(), values)
    assert (found - expected).abs().max() < 0.05


@torch.inference_mode()
def test_the_profile_sees_it(monkeypatch):
    _, tiled = layer(int8=True)
    values = torch.randn(500, 96, dtype=torch.bfloat16)
    clock = iter([0.0, 8.0])
    monkeypatch.setattr(profile.time, "perf_counter", lambda: next(clock))
    found = profile.parts(lambda: [tiled(values) for _ in range(20)])
    spent = 8.0 * found.shares[profile.LINEARS]
    assert found.linear_rate * spent == pytest.approx(20 * 2 * 500 * 96 * 80)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_where_there_is_no_such_machine_models_run_without(precision, monkeypatch):
    def logits() -> torch.Tensor:
        model = prune(tiny.FAMILIES["bert"](dtype=torch.float32).eval(), PruningConfig("threshold"))
        model.pruner.thresholds.fill_(0.5)
        model.for_inference(precision)
        used = any(isinstance(module, TileLinear) for module in model.modules())
        assert used == tiles.here()
        with torch.inference_mode():
            return model(**tiny.random_inputs(model.model, [9, 30])).logits.float()

    expected = logits()
    monkeypatch.setattr(native, "instructions", "avx2")
    assert (logits() - expected).abs().max() < 0.1
