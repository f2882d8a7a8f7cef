"""The native route: attention and importance in one pass in cache, by our own C++, on CPUs.

It holds no n x n matrix, so memory grows with the length of a text and not with its square. Forward only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thresher import native
from thresher.packed import PackedBatch

if TYPE_CHECKING:
    from thresher.pruners import Decision


def serves(query: Tensor, *others: Tensor) -> bool:
    """True if this route can take such input: on a CPU, in float32 or bfloat16, with no gradients wanted."""
    if (
        native.library is None
        or query.device.type != "cpu"
        or query.dtype not in (torch.float32, torch.bfloat16)
    ):
        return False
    if any(x.dtype != query.dtype or x.shape != query.shape for x in others):
        return False
    return not native.wants_gradients(query, *others)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed: PackedBatch,
    *,
    scale: float,
    window: int | None = None,
    decide: Callable[[Tensor], Decision] | Decision | None = None,
) -> tuple[Tensor, Decision | None]:
    """As `thresher.attention.attend`.

    One pass makes importance and the context rows of all tokens, of which the survivors' are kept: a second
    pass, over survivors alone, would cost more unless nearly all tokens go.
    """
    operation = torch.ops.thresher.attend
    starts, positions, reach = packed.cu_seqlens, packed.positions, -1 if window is None else window
    decision = None if callable(decide) else decide
    if decision is not None and decision.keep is not None:
        rows, row_starts = decision.survivors, packed.at(decision.survivors).cu_seqlens
        context, _ = operation(query, key, value, starts, positions, scale, reach, rows, row_starts, False)
        return context, decision
    context, importance = operation(
        query, key, value, starts, positions, scale, reach, None, None, callable(decide)
    )
    if callable(decide):
        decision = decide(importance)
        if decision.keep is not None:
            context = context.index_select(0, decision.survivors)
    return context, decision


def _run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    positions: Tensor,
    scale: float,
    window: int,
    rows: Tensor | None,
    row_starts: Tensor | None,
    wanted: bool,
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
    if not all(x.is_contiguous() for x in (*places, *offsets)):
        raise ValueError("positions, rows, starts and row_starts must be contiguous")
    query, key, value = (x if x.stride(2) == 1 else x.contiguous() for x in (query, key, value))
    context = query.new_empty(tokens if rows is None else len(rows), heads * dim)
    received = query.new_empty(heads if wanted else 0, tokens, dtype=torch.float32)
    importance = query.new_empty(tokens if wanted else 0, dtype=torch.float32)
    problem = native.Problem(
        query.data_ptr(),
        key.data_ptr(),
        value.data_ptr(),
        query.stride()[:2],
        key.stride()[:2],
        value.stride()[:2],
        starts.data_ptr(),
        positions.data_ptr(),
        None if rows is None else rows.data_ptr(),
        None if row_starts is None else row_starts.data_ptr(),
        context.data_ptr(),
        received.data_ptr() if wanted else None,
        importance.data_ptr(),
        len(starts) - 1,
        tokens,
        heads,
        dim,
        window,
        scale,
        query.dtype == torch.bfloat16,
    )
    work = tokens * tokens * heads * dim // (len(starts) - 1)
    assert native.library is not None
    if native.library.thresher_attend(ctypes.byref(problem), native.threads(work), native.team):
        raise MemoryError("Attention found no memory for a text this long.")
    return context, importance


def _shapes(query, key, value, starts, positions, scale, window, rows, row_starts, wanted):
    tokens, (_, heads, dim) = positions.shape[0], query.shape
    context = query.new_empty(tokens if rows is None else rows.shape[0], heads * dim)
    return context, query.new_empty(tokens if wanted else 0, dtype=torch.float32)


if native.library is not None:
    _definitions = torch.library.Library("thresher", "FRAGMENT")
    _definitions.define(
        "attend(Tensor query, Tensor key, Tensor value, Tensor starts, Tensor positions, float scale, "
        "int window, Tensor? rows, Tensor? row_starts, bool wanted) -> (Tensor, Tensor)"
    )
    _definitions.impl("attend", _run, "CPU")
    torch.library.register_fake("thresher::attend", _shapes)
