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
from thresher.attention import TableBias
from thresher.attention.native import Terms, problem_of
from thresher.engines.base import Heads, Passed
from thresher.engines.layers import NativeLinear, replace
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
    LayersWork,
    Linear,
    Norm,
    Stage,
    StageWork,
)
from thresher.packed import PackedBatch
from thresher.pruners import Rule

NO_LINEAR = Linear(weights=torch.empty(0), sizes=None, start=None, bias=torch.empty(0), inputs=0, outputs=0)
NO_NORM = Norm(weight=None, bias=None, epsilon=0.0, centred=False)

STAGE_OPERATION = "thresher::stage"  # and in the profile its rows, and their multiply-adds


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
        if self.dtype_of(precision) == torch.float32:  # a row of the head hangs on no other either
            replace(family.model, self._linear("fp32", family.model.device))
        self._stages: dict[int, _Filled | None] = {}
        self._chain: _Chain | None = None
        self._precision = precision

    def _linear(self, precision: str, device: torch.device) -> Callable[[nn.Linear], nn.Module]:
        if device.type == "cpu" and native.has_linears(precision):
            return partial(NativeLinear, precision=precision)
        return super()._linear(precision, device)

    @staticmethod
    def _fast_in_bf16() -> bool:
        return native.instructions in ("avx512-bf16", "amx")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_stages": {}, "_chain": None}  # which hold addresses

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
        rows, outputs = len(context), filled.record["next"]["outputs"]
        target = hidden.new_empty(rows, filled.record["dim"])
        made = hidden.new_empty(rows, outputs) if outputs else None
        work = StageWork(
            stage=filled.address,
            hidden=hidden,
            survivors=survivors,
            context=context,
            target=target,
            heads=made,
            positions=None if filled.record["turns"] is None else packed.positions,
            rows=rows,
            hidden_stride=hidden.stride(0),
            context_stride=context.stride(0),
            gathered=True,
            bf16=hidden.dtype == torch.bfloat16,
        )
        native.call(
            "stage", work, rows * filled.products, label=f"{STAGE_OPERATION} {rows} {filled.products}"
        )
        if made is None:
            return target, None
        heads, kv_heads, head_dim = filled.heads
        parts = made.view(rows, heads + 2 * kv_heads, head_dim).split((heads, kv_heads, kv_heads), 1)
        return target, (parts[0], parts[1], parts[2])

    def layers(
        self, hidden: Tensor, heads: Heads, packed: PackedBatch, rule: Rule, carries: bool = False
    ) -> Passed | None:
        if torch.autograd._profiler_enabled():  # which shall see what the time goes to
            return None
        if not self._takes(hidden, *heads) or (chain := self._chained()) is None:
            return None
        bias, table, entries = self.family.bias(0, heads, packed), None, None
        if isinstance(bias, TableBias):
            table, entries = bias.table.float().contiguous(), bias.entries.int()
            if native.wants_gradients(table):
                return None
        count, (layers, batch) = packed.tokens, (self.family.layers, packed.batch)
        target = hidden.new_empty(count, self.family.dim)
        carried = torch.empty_like(target) if carries else None
        terms = Terms(packed.cu_seqlens, packed.positions, entries=entries)
        positions, depths = torch.empty_like(packed.positions), torch.empty_like(packed.positions)
        starts = packed.cu_seqlens.new_empty(layers, batch + 1)
        work = LayersWork(
            entry=problem_of(*heads, None, terms, table),
            stages=chain.stages,
            windows=chain.windows,
            scales=chain.scales,
            thresholds=rule.thresholds,
            vectors=rule.vectors,
            lengths=packed.original_lengths,
            hidden=hidden,
            target=target,
            carried=carried,
            positions=positions,
            depths=depths,
            starts=starts,
            layers=layers,
            width=self.family.dim,
            hidden_stride=hidden.stride(0),
            prefix=rule.prefix,
            suffix=rule.suffix,
            bare=rule.bare,
            length=rule.length,
            largest=rule.largest,
            least=rule.least,
            alone=rule.alone,
        )
        native.call("layers", work, count * chain.products, label=f"thresher::layers {count}")
        left = PackedBatch(starts[-1], positions[: int(starts[-1, -1])], packed.original_lengths)
        return Passed(target[: left.tokens] if carried is None else carried, left, starts, depths)

    def _chained(self) -> _Chain | None:
        """All stages, made when first asked for. None where native code does not cover them all, or its
        attention."""
        filled = [self._filled(index) for index in range(self.family.layers)]
        whole = [x for x in filled if x is not None]
        if len(whole) < len(filled) or self.family.biased == "by layer":
            return None
        if self._chain is None:
            self._chain = _Chain.of(self.family, whole)
        return self._chain if self._chain.alike else None

    def _takes(self, *given: Tensor) -> bool:
        """Whether native code reads such numbers, and goes forward alone."""
        wanted = DTYPES.get(self._precision, given[0].dtype)
        return (
            all(x.is_cpu and x.dtype == wanted and x.stride(-1) == 1 for x in given)
            and native.has_stages(self._precision)
            and not native.wants_gradients(*given)
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
    heads: tuple[int, int, int]
    products: int

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
            turns=modules.turns,
            turned=(shape.heads + shape.kv_heads) * shape.head_dim,
            head_dim=shape.head_dim,
        )
        return cls(
            record=record,
            struct=STAGE.filled(record),
            linears=tuple(linears),
            modules=modules.all(),
            heads=(shape.heads, shape.kv_heads, shape.head_dim),
            products=sum(x.in_features * x.out_features for x in linears),
        )

    @property
    def address(self) -> int:
        return ctypes.addressof(self.struct)

    def stands(self) -> bool:
        """Whether it still says what the modules do: none has moved, none is laid out for other instructions,
        and none has hooks."""
        return all(x.here for x in self.linears) and not any(map(is_heard, self.modules))


@dataclass(frozen=True)
class _Chain:
    """All stages, and what the attentions between them need.

    Attributes
    ----------
    alike : bool
        Whether one kind of attention serves all layers.
    stages : int64 tensor [layers]
        Addresses of their records.
    windows, scales : tensors [layers]
    products : int
        Multiply-adds of a token.
    """

    alike: bool
    stages: Tensor
    windows: Tensor
    scales: Tensor
    products: int

    @classmethod
    def of(cls, family: Family, filled: list[_Filled]) -> _Chain:
        shapes = [family.shape(index) for index in range(family.layers)]
        kinds = {(shape.dim, shape.heads, shape.kv_heads, shape.head_dim) for shape in shapes}
        return cls(
            alike=len(kinds) == 1,
            stages=torch.tensor([x.address for x in filled]),
            windows=torch.tensor([-1 if shape.window is None else shape.window for shape in shapes]),
            scales=torch.tensor([shape.scale for shape in shapes]),
            products=sum(x.products for x in filled),
        )


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
    if (epsilon := getattr(module, "variance_epsilon", None)) is not None:  # by root mean square
        weight: Any = module.weight
        weight = weight.detach().float().contiguous()
        return Norm(weight=weight, bias=None, epsilon=epsilon, centred=False)
    if not isinstance(module, nn.LayerNorm) or module.weight is None:
        return None
    bias = None if module.bias is None else module.bias.detach().float().contiguous()
    return Norm(
        weight=module.weight.detach().float().contiguous(), bias=bias, epsilon=module.eps, centred=True
    )
