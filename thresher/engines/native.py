"""Stages by our own C++ on CPUs: one call from the attention's context to the next layer's queries, keys and
values. What the native code does not cover, PyTorch runs. Needs nothing."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import (
    GELUActivation,
    GELUTanh,
    NewGELUActivation,
    SiLUActivation,
)

from thresher import native
from thresher.engines.base import Heads
from thresher.engines.layers import NativeLinear
from thresher.engines.layers.native import DTYPES
from thresher.engines.torch import TorchEngine
from thresher.families import Family, StageModules, is_heard
from thresher.native.records import (
    GELU,
    GELU_TANH,
    IDENTITY,
    PRECISIONS,
    RELU,
    SILU,
    STAGE,
    Linear,
    Norm,
    Stage,
    StageWork,
)
from thresher.packed import PackedBatch

NO_LINEAR = Linear(weights=torch.empty(0), sizes=None, start=None, bias=torch.empty(0), inputs=0, outputs=0)
NO_NORM = Norm(weight=None, bias=None, epsilon=0.0, centred=False)


class NativeEngine(TorchEngine, name="native"):
    """Calls native code, and otherwise the modules of the transformers model.

    Parameters
    ----------
    family : Family
    precision : {"fp32", "bf16", "int8"}
        Weights are converted, and layers replaced, in place.
    """

    def __init__(self, family: Family, precision: str):
        super().__init__(family, precision)
        self._stages: dict[int, _Filled | None] = {}
        self._precision = precision

    def _linear(self, precision: str, device: torch.device) -> Callable[[nn.Linear], nn.Module]:
        if device.type == "cpu" and native.has_linears(precision):
            return partial(NativeLinear, precision=precision)
        return super()._linear(precision, device)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_stages": {}}  # which hold addresses

    def stage(
        self,
        index: int,
        hidden: Tensor,
        context: Tensor,
        packed: PackedBatch,
        survivors: Tensor | None = None,
        gate: Tensor | None = None,
    ) -> tuple[Tensor, Heads | None]:
        filled = self._filled(index) if gate is None and self._takes(hidden, context) else None
        if filled is None:
            return super().stage(index, hidden, context, packed, survivors, gate)
        rows, (heads, kv_heads, head_dim) = len(context), filled.heads
        target = hidden.new_empty(rows, filled.dim)
        made = hidden.new_empty(rows, (heads + 2 * kv_heads) * head_dim) if filled.follows else None
        work = StageWork(
            stage=filled.address,
            hidden=hidden,
            survivors=survivors,
            context=context,
            target=target,
            heads=made,
            turns=filled.turns,
            positions=None if filled.turns is None else packed.positions,
            turned=(heads + kv_heads) * head_dim,
            head_dim=head_dim,
            rows=rows,
            hidden_stride=hidden.stride(0),
            context_stride=context.stride(0),
            bf16=hidden.dtype == torch.bfloat16,
        )
        native.call("stage", work, rows * filled.products, label=f"thresher::stage {rows} {filled.products}")
        if made is None:
            return target, None
        parts = made.view(rows, heads + 2 * kv_heads, head_dim).split((heads, kv_heads, kv_heads), 1)
        return target, (parts[0], parts[1], parts[2])

    def _takes(self, hidden: Tensor, context: Tensor) -> bool:
        """Whether native code reads such rows, and goes forward alone."""
        wanted = DTYPES.get(self._precision, hidden.dtype)
        return (
            hidden.is_cpu
            and hidden.dtype == context.dtype == wanted
            and hidden.stride(1) == context.stride(1) == 1
            and native.has_stages(self._precision)
            and not native.wants_gradients(hidden, context)
        )

    def _filled(self, index: int) -> _Filled | None:
        """The record of a stage, made when first asked for. None where native code does not cover it."""
        if index not in self._stages:
            self._stages[index] = _Filled.of(self.family, index, self._precision)
        filled = self._stages[index]
        return filled if filled is not None and filled.stands() else None


@dataclass(frozen=True)
class _Filled:
    """A stage as native code reads it.

    Attributes
    ----------
    record : Stage
        Its tensors, which the struct points into.
    struct : ctypes.Structure
    linears, modules : tuples of modules
        What it stands for: its linear layers, and all.
    heads : tuple of int
        Heads of queries, heads of keys and of values, and their width.
    products : int
        Multiply-adds of a row.
    """

    record: Stage
    struct: ctypes.Structure
    linears: tuple[NativeLinear, ...]
    modules: tuple[nn.Module, ...]
    turns: Tensor | None
    heads: tuple[int, int, int]
    dim: int
    products: int
    follows: bool

    @classmethod
    def of(cls, family: Family, index: int, precision: str) -> _Filled | None:
        modules, shape = family.stage(index), family.shape(index)
        if modules is None or (activation := _activation(modules)) is None:
            return None
        given = (modules.output, modules.up, modules.down, modules.following)
        linears = [x for x in given if isinstance(x, NativeLinear) and x.precision == precision]
        if len(linears) < sum(x is not None for x in given):
            return None
        first, second = _norm(modules.first), _norm(modules.second)
        if first is None or second is None or (modules.gated and shape.ffn % 16):
            return None
        output, up, down, following = [*(x.record() for x in linears), NO_LINEAR][:4]
        record = Stage(
            output=output,
            up=up,
            down=down,
            next=following,
            first=first,
            second=second,
            dim=shape.dim,
            before=modules.pre_norm,
            gated=modules.gated,
            activation=activation,
            precision=PRECISIONS[precision],
        )
        return cls(
            record=record,
            struct=STAGE.filled(record),
            linears=tuple(linears),
            modules=modules.all(),
            turns=modules.turns,
            heads=(shape.heads, shape.kv_heads, shape.head_dim),
            dim=shape.dim,
            products=sum(x.in_features * x.out_features for x in linears),
            follows=modules.following is not None,
        )

    @property
    def address(self) -> int:
        return ctypes.addressof(self.struct)

    def stands(self) -> bool:
        """Whether it still says what the modules do: none has moved, and none has hooks."""
        return all(x.moved is None for x in self.linears) and not any(map(is_heard, self.modules))


def _activation(modules: StageModules) -> int | None:
    """The code of what comes between the feed-forward's layers. None for what native code lacks."""
    kind = modules.activation
    if getattr(modules.up, "gelu", False):
        return GELU if isinstance(kind, nn.Identity) else None
    if isinstance(kind, nn.GELU):
        return GELU if kind.approximate == "none" else GELU_TANH
    for code, kinds in (
        (IDENTITY, nn.Identity),
        (GELU, GELUActivation),
        (GELU_TANH, (NewGELUActivation, GELUTanh)),
        (SILU, (nn.SiLU, SiLUActivation)),
        (RELU, nn.ReLU),
    ):
        if isinstance(kind, kinds):
            return code
    return None


def _norm(module: nn.Module | None) -> Norm | None:
    """A norm as native code reads it, in float32. None for what it lacks."""
    if module is None or isinstance(module, nn.Identity):
        return NO_NORM
    if not isinstance(module, nn.LayerNorm) or module.weight is None:
        return None
    bias = None if module.bias is None else module.bias.detach().float().contiguous()
    return Norm(
        weight=module.weight.detach().float().contiguous(), bias=bias, epsilon=module.eps, centred=True
    )
