"""What is handed to the native code: one record a call, each of them a struct of csrc/interface.h.

A record is a typed dictionary: it is made by keyword alone, and every field is named. Tensors are given as
they are, and None where the struct may hold null. A field has the name that it has in C++, where comments say
what it means.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Annotated, TypedDict

import torch
from torch import Tensor

from thresher.native.layout import Kind, Layout

_numbers = (torch.float32, torch.bfloat16)
Floats = Annotated[Tensor, Kind("float*", dtypes=(torch.float32,))]
Offsets = Annotated[Tensor, Kind("int32*", dtypes=(torch.int32,))]
Places = Annotated[Tensor, Kind("int64*", dtypes=(torch.int64,))]
Numbers = Annotated[Tensor, Kind("void*", dtypes=_numbers)]
Strided = Annotated[
    Tensor, Kind("void*", dtypes=_numbers, contiguous=False)
]  # another field holds the stride
Weights = Annotated[Tensor, Kind("void*", dtypes=(torch.int8, torch.int16, *_numbers))]
Address = Annotated[int, Kind("void*")]  # of a record that was filled before, and is kept
Addresses = Annotated[Tensor, Kind("void*", dtypes=(torch.int64,))]  # likewise, of several
Rounded = Annotated[Tensor, Kind("void*", dtypes=(torch.int8, *_numbers))]
Count = Annotated[int, Kind("int64", ctypes.c_int64)]
Flag = Annotated[bool, Kind("int32", ctypes.c_int32)]
Code = Annotated[int, Kind("int32", ctypes.c_int32)]  # of an enumeration, or any
PRECISIONS = {"fp32": 0, "bf16": 1, "int8": 2}  # Precision in csrc/interface.h
LINEARS, STAGES, IN_WORDS = 1, 2, 4  # Has, likewise
IDENTITY, GELU, GELU_TANH, SILU, RELU = range(5)  # Activation there
Real = Annotated[float, Kind("float", ctypes.c_float)]
Stride = Annotated[Sequence[int], Kind("int64[2]", ctypes.c_int64 * 2)]


class Problem(TypedDict):
    """Attention of a packed batch."""

    query: Strided
    key: Strided
    value: Strided
    query_stride: Stride
    key_stride: Stride
    value_stride: Stride
    starts: Offsets
    positions: Places
    log_weight: Floats | None
    table: Floats | None
    entries: Offsets | None
    rows: Places | None
    row_starts: Offsets | None
    context: Numbers | None
    received: Floats | None
    importance: Floats | None
    batch: Count
    tokens: Count
    heads: Count
    dim: Count
    groups: Count
    window: Count
    numbers: Count
    reach: Count
    scale: Real
    dropout: Real
    seed: Code
    bf16: Flag


class Gradients(TypedDict):
    """The way back through attention."""

    problem: Problem
    context_grad: Numbers
    importance_grad: Floats | None
    query_grad: Numbers
    key_grad: Numbers
    value_grad: Numbers
    log_weight_grad: Floats | None
    table_grad: Floats | None


class ScoreWork(TypedDict):
    """Learned scores of a packed batch."""

    hidden: Strided
    vector: Floats
    importance: Floats
    starts: Offsets
    scores: Floats
    batch: Count
    dim: Count
    stride: Count
    largest: Real
    least: Real
    alone: Flag
    bf16: Flag


class RowWork(TypedDict):
    """Rows before or after a product of int8."""

    source: Numbers | None
    target: Rounded
    sizes: Floats
    bias: Floats | None
    rows: Count
    width: Count
    bf16: Flag
    gelu: Flag


class Linear(TypedDict):
    """A linear layer in panels."""

    weights: Weights
    sizes: Floats | None
    start: Offsets | None
    bias: Floats
    inputs: Count
    outputs: Count


class LinearWork(TypedDict):
    """Rows through a linear layer."""

    linear: Linear
    source: Strided
    target: Numbers
    rows: Count
    stride: Count
    activation: Count
    precision: Code
    bf16: Flag


class Norm(TypedDict):
    """LayerNorm or RMSNorm."""

    weight: Floats | None
    bias: Floats | None
    epsilon: Real
    centred: Flag


class Stage(TypedDict):
    """The rest of a layer after its attention, and the next layer's queries, keys and values."""

    output: Linear
    up: Linear
    down: Linear
    next: Linear
    first: Norm
    second: Norm
    dim: Count
    before: Flag
    gated: Flag
    activation: Code
    precision: Code
    turns: Floats | None
    turned: Count
    head_dim: Count


class StageWork(TypedDict):
    """Rows through a stage."""

    stage: Address
    hidden: Strided
    survivors: Places | None
    context: Strided
    target: Numbers
    heads: Numbers | None
    positions: Places | None
    rows: Count
    hidden_stride: Count
    context_stride: Count
    gathered: Flag
    bf16: Flag


class LayersWork(TypedDict):
    """All layers of a packed batch."""

    entry: Problem
    stages: Addresses
    windows: Places
    scales: Floats
    thresholds: Floats
    vectors: Floats | None
    lengths: Places
    hidden: Strided
    target: Numbers
    carried: Numbers | None
    positions: Places
    depths: Places
    starts: Offsets
    layers: Count
    width: Count
    hidden_stride: Count
    prefix: Count
    suffix: Count
    bare: Count
    length: Real
    largest: Real
    least: Real
    alone: Flag


class BurnWork(TypedDict):
    """Products of numbers that stay in registers."""

    rounds: Count
    precision: Count


FUNCTIONS = {
    "attend": Layout(Problem),
    "attend_backward": Layout(Gradients),
    "score": Layout(ScoreWork),
    "quantise": Layout(RowWork),
    "finish": Layout(RowWork),
    "linear": Layout(LinearWork),
    "stage": Layout(StageWork),
    "layers": Layout(LayersWork),
    "burn": Layout(BurnWork),
}
"""What each function of the library takes. Its name there is ``thresher_<name>``."""

STAGE = Layout(Stage)
"""Filled once a stage: `StageWork` holds its address."""
LAYOUTS = (*FUNCTIONS.values(), STAGE)
