"""Int8 layers, and the rows before and after their products, against float64."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from tests.cases import using
from thresher import UserError, native
from thresher.engines.layers.int8 import Int8Linear, finish_, quantise
from thresher.families import GeluLinear

ROUTES = ["torch", *native.INSTRUCTIONS]


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(native, "library", None)
        yield
        return
    with using(request.param):
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 5), (7, 16), (300, 33), (500, 1536), (0, 8)])
def test_rows_to_int8_and_back(route, rows, width, dtype):
    values = (torch.randn(rows, width) * torch.logspace(-6, 6, rows)[:, None]).to(dtype)
    whole, sizes = quantise(values)
    assert (whole.dtype, sizes.dtype) == (torch.int8, torch.float32)
    torch.testing.assert_close(sizes, values.float().abs().amax(1) / 127)
    steps = values.double() / sizes.double()[:, None]
    assert ((whole.double() - steps).abs() < 0.5001).all()
    assert (whole.int().abs().amax(1) == 127).all()


def test_rows_of_zeros_and_of_no_numbers(route):
    values = torch.zeros(3, 40)
    values[1, 33], values[2, 7] = float("nan"), -2.0
    whole, sizes = quantise(values)
    assert (whole[0] == 0).all()
    assert sizes.isnan().tolist() == [False, True, False]
    assert whole[2].tolist() == [-127 if i == 7 else 0 for i in range(40)]
    out = finish_(torch.ones(3, 40, dtype=torch.bfloat16), sizes, torch.zeros(40), False)
    assert out.isnan().all(1).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (7, 16), (300, 33), (500, 1536)])
def test_products_to_what_they_stand_for(route, rows, width, gelu, dtype):
    product, sizes, bias = torch.randn(rows, width).to(dtype) * 4, torch.rand(rows) * 2, torch.randn(width)
    expected = product.double() * sizes[:, None] + bias
    expected = F.gelu(expected) if gelu else expected
    found = finish_(product, sizes, bias, gelu)
    assert found.dtype == dtype
    atol, rtol = {torch.float32: (2e-6, 1e-6), torch.bfloat16: (1e-6, 2**-8)}[dtype]
    torch.testing.assert_close(found.double(), expected, atol=atol, rtol=rtol)


@pytest.mark.parametrize("vnni", [False, True])
@pytest.mark.parametrize("gelu", [False, True])
@torch.inference_mode()
def test_a_layer_is_the_product_of_what_was_rounded(route, gelu, vnni, monkeypatch):
    if not vnni:
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    linear = torch.nn.Linear(64, 48, bias=not gelu)
    layer = Int8Linear(GeluLinear.of(linear) if gelu else linear)
    values = torch.randn(2, 30, 64)
    weight_sizes = linear.weight.double().abs().amax(1, keepdim=True) / 127
    weight = (linear.weight / weight_sizes.float()).round().double() * weight_sizes
    whole, sizes = quantise(values.flatten(0, 1))
    expected = (whole.double() * sizes.double()[:, None] @ weight.t()).view(2, 30, 48)
    expected = F.gelu(expected) if gelu else expected + linear.bias
    torch.testing.assert_close(layer(values).double(), expected, atol=1e-5, rtol=1e-5)
    for dtype, close in ((torch.bfloat16, 0.05), (torch.float16, 0.02), (torch.float64, 1e-5)):
        found = layer(values.to(dtype))
        assert found.dtype == dtype
        assert (found - layer(values.to(dtype).float())).abs().max() < close
    with pytest.raises(UserError, match="CPUs alone"):
        copy.deepcopy(layer).to("meta")
    assert (layer(values) - (F.gelu(linear(values)) if gelu else linear(values))).abs().max() < 0.1
    for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(same(values), layer(values))


@pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="without VNNI the product is not one of a packed weight"
)
def test_the_product_is_not_onednns_reference():
    """Which is a thousand times as slow, and is all that some processors have for some kinds of numbers."""
    script = (
        "import torch; from thresher.engines.layers.int8 import Int8Linear; "
        "Int8Linear(torch.nn.Linear(64, 96))(torch.randn(16, 64))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
    ).stdout
    products = [line for line in said.splitlines() if ",exec," in line and ",matmul," in line]
    assert products, said
    assert not any("ref" in line.split(",matmul,")[1].split(",")[0] for line in products), products
