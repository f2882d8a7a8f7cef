"""The native route: attention and importance in one pass in cache, by our own C++, on CPUs.

It holds no n x n matrix, so memory grows with the length of a text and not with its square. The way back, for
training, computes the probabilities again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thresher import native
from thresher.attention.base import Asked, Attended


class Native(Attended):
    """On CPUs, in float32 or bfloat16, without dropout.

    One pass makes importance and the context rows of all tokens, of which the survivors' are kept: a second
    pass, over survivors alone, would cost more unless nearly all tokens go.
    """

    @classmethod
    def serves(cls, asked: Asked) -> bool:
        if asked.dropout or not native.serves(query := asked.query):
            return False
        return all(x.dtype == query.dtype and x.shape == query.shape for x in (asked.key, asked.value))

    def __init__(self, asked: Asked):
        super().__init__(asked)
        self.log_weight = None if asked.log_weight is None else asked.log_weight.float()
        inputs = (asked.query, asked.key, asked.value, self.log_weight)
        self.learns = native.wants_gradients(*(x for x in inputs if x is not None))

    def _receive(self) -> Tensor:
        self._context, importance = self._run(wanted=True)
        return importance

    def _rows(self) -> Tensor:
        return self._run(wanted=False)[0]

    def context(self, survivors: Tensor | None = None) -> Tensor:
        if survivors is None or self._context is not None or self.learns:
            return super().context(survivors)
        starts = self.asked.packed.at(survivors).cu_seqlens
        return self._run(False, survivors, starts)[0]

    def _run(self, wanted: bool, *rows: Tensor) -> tuple[Tensor, Tensor]:
        """Context ``[tokens or rows, heads * head_dim]``, and importance ``[tokens]`` if it is wanted."""
        asked, packed = self.asked, self.asked.packed
        operation = _Differentiable.apply if self.learns else torch.ops.thresher.attend
        found: tuple[Tensor, Tensor] = operation(
            asked.query,
            asked.key,
            asked.value,
            self.log_weight,
            packed.cu_seqlens,
            packed.positions,
            asked.scale,
            -1 if asked.window is None else asked.window,
            wanted,
            *rows,
        )
        return found


class _Differentiable(torch.autograd.Function):
    """The operation with its way back, for the context of all tokens."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        """Inputs are those of `_run`, without rows."""
        ctx.save_for_backward(*inputs[:6])
        ctx.scale, ctx.window, ctx.wanted = inputs[6:]
        ctx.set_materialize_grads(False)
        return torch.ops.thresher.attend(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, context_grad: Tensor | None, importance_grad: Tensor | None) -> tuple[Any, ...]:
        query, key, value, log_weight, starts, positions = ctx.saved_tensors
        query, key, value, log_weight = _readable(query, key, value, log_weight)
        tokens, (_, heads, _) = len(positions), query.shape
        if context_grad is None:
            context_grad = query.new_zeros(tokens, *query.shape[1:])
        context_grad = context_grad.to(query.dtype).contiguous()
        if importance_grad is not None:
            importance_grad = importance_grad.contiguous() if ctx.wanted else None
        # Rows after the tokens were not read.
        grads = [query.new_empty(query.shape) for _ in range(3)]
        for grad in grads:
            grad[tokens:] = 0
        weight_grad = None if log_weight is None else log_weight.new_empty(heads, tokens)
        gradients = native.Gradients(
            _problem(query, key, value, log_weight, starts, positions, ctx.scale, ctx.window),
            context_grad.data_ptr(),
            None if importance_grad is None else importance_grad.data_ptr(),
            *(grad.data_ptr() for grad in grads),
            None if weight_grad is None else weight_grad.data_ptr(),
        )
        with native.in_profile("thresher::attend_backward"):
            _call("attend_backward", gradients, starts, query)
        return *grads, None if weight_grad is None else weight_grad.sum(0), *(None,) * 5


def _run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_weight: Tensor | None,
    starts: Tensor,
    positions: Tensor,
    scale: float,
    window: int,
    wanted: bool,
    rows: Tensor | None = None,
    row_starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Context ``[rows, heads * dim]`` and importance ``[tokens]`` (empty unless wanted)."""
    tokens, (_, heads, dim) = len(positions), query.shape
    places = [x for x in (positions, rows) if x is not None]
    offsets = [x for x in (starts, row_starts) if x is not None]
    if any(x.dtype != query.dtype or x.shape != query.shape for x in (key, value)):
        raise ValueError("query, key and value must be of one shape and dtype")
    if len(query) < tokens:
        raise ValueError("there are fewer queries than positions")
    if any(x.dtype != torch.int64 for x in places) or any(x.dtype != torch.int32 for x in offsets):
        raise ValueError("positions and rows must be int64, starts and row_starts int32")
    if log_weight is not None and (log_weight.dtype != torch.float32 or log_weight.shape != (tokens,)):
        raise ValueError("log_weight must be float32, and one for every token")
    if not all(x.is_contiguous() for x in (*places, *offsets)):
        raise ValueError("positions, rows, starts and row_starts must be contiguous")
    query, key, value, log_weight = _readable(query, key, value, log_weight)
    context = query.new_empty(tokens if rows is None else len(rows), heads * dim)
    received = query.new_empty(heads if wanted else 0, tokens, dtype=torch.float32)
    importance = query.new_empty(tokens if wanted else 0, dtype=torch.float32)
    problem = _problem(query, key, value, log_weight, starts, positions, scale, window)
    if rows is not None and row_starts is not None:
        problem.rows, problem.row_starts = rows.data_ptr(), row_starts.data_ptr()
    problem.context, problem.importance = context.data_ptr(), importance.data_ptr()
    problem.received = received.data_ptr() if wanted else None
    _call("attend", problem, starts, query)
    return context, importance


def _readable(
    query: Tensor, key: Tensor, value: Tensor, log_weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As native code reads them: dims, and log weights, side by side."""
    query, key, value = (x if x.stride(2) == 1 else x.contiguous() for x in (query, key, value))
    return query, key, value, None if log_weight is None else log_weight.contiguous()


def _call(name: str, work: ctypes.Structure, starts: Tensor, query: Tensor) -> None:
    tokens, heads, dim = query.shape
    products = tokens * tokens * heads * dim // max(1, len(starts) - 1)
    operation: Callable[..., int] = getattr(native.library, f"thresher_{name}")
    if operation(ctypes.byref(work), native.threads(products), native.team):
        raise MemoryError("Attention found no memory for a text this long.")


def _problem(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_weight: Tensor | None,
    starts: Tensor,
    positions: Tensor,
    scale: float,
    window: int,
) -> native.Problem:
    """What goes into attention, not yet what comes out."""
    _, heads, dim = query.shape
    return native.Problem(
        *(x.data_ptr() for x in (query, key, value)),
        *(x.stride()[:2] for x in (query, key, value)),
        starts.data_ptr(),
        positions.data_ptr(),
        None if log_weight is None else log_weight.data_ptr(),
        batch=len(starts) - 1,
        tokens=len(positions),
        heads=heads,
        dim=dim,
        window=window,
        scale=scale,
        bf16=query.dtype == torch.bfloat16,
    )


def _shapes(
    query, key, value, log_weight, starts, positions, scale, window, wanted, rows=None, row_starts=None
):
    tokens, (_, heads, dim) = positions.shape[0], query.shape
    context = query.new_empty(tokens if rows is None else rows.shape[0], heads * dim)
    return context, query.new_empty(tokens if wanted else 0, dtype=torch.float32)


if native.library is not None:
    _definitions = torch.library.Library("thresher", "FRAGMENT")
    _definitions.define(
        "attend(Tensor query, Tensor key, Tensor value, Tensor? log_weight, Tensor starts, Tensor positions, "
        "float scale, int window, bool wanted, Tensor? rows=None, Tensor? row_starts=None) "
        "-> (Tensor, Tensor)"
    )
    _definitions.impl("attend", _run, "CPU")
    torch.library.register_fake("thresher::attend", _shapes)
