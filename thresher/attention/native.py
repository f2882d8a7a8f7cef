"""The native route: attention and importance in one pass in cache, by our own C++, on CPUs.

It holds no n x n matrix, so memory grows with the length of a text and not with its square. The way back, for
training, computes the probabilities again.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from thresher import native
from thresher.attention.base import Asked, Attended
from thresher.attention.bias import TableBias
from thresher.native.records import Gradients, Problem


class Native(Attended):
    """On CPUs, in float32 or bfloat16.

    One pass makes importance and the context rows of all tokens, of which the survivors' are kept: a second
    pass, over survivors alone, would cost more unless nearly all tokens go.
    """

    grouped = True

    @classmethod
    def serves(cls, asked: Asked) -> bool:
        if not native.serves(asked.query) or not isinstance(asked.bias, TableBias | None):
            return False
        return _alike(asked.query, asked.key, asked.value)

    def __init__(self, asked: Asked):
        super().__init__(asked)
        # Of one drawing of dropout, which torch's random numbers decide.
        self._seed = int(torch.randint(-(2**31), 2**31, ())) if asked.dropout else 0

    def _receive(self) -> Tensor:
        self._context, importance = self._pass(wanted=True)
        return importance

    def _rows(self) -> Tensor:
        return self._pass(wanted=False)[0]

    def context(self, survivors: Tensor | None = None) -> Tensor:
        if survivors is None or self._context is not None:
            return super().context(survivors)
        starts = self.asked.packed.at(survivors).cu_seqlens
        return self._pass(wanted=False, rows=survivors, row_starts=starts)[0]

    def _pass(self, **how: Any) -> tuple[Tensor, Tensor]:
        asked = self.asked
        return one_pass(
            query=asked.query,
            key=asked.key,
            value=asked.value,
            log_weight=asked.log_weight,
            starts=asked.packed.cu_seqlens,
            positions=asked.packed.positions,
            scale=asked.scale,
            window=asked.window,
            dropout=asked.dropout,
            seed=self._seed,
            bias=cast("TableBias | None", asked.bias),  # `serves` says so
            **how,
        )


def one_pass(
    *,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_weight: Tensor | None,
    starts: Tensor,
    positions: Tensor,
    scale: float,
    window: int | None,
    wanted: bool,
    dropout: float = 0.0,
    seed: int = 0,
    bias: TableBias | None = None,
    rows: Tensor | None = None,
    row_starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Context and importance from one call of the native code. Differentiable.

    Parameters
    ----------
    query, key, value : tensors [tokens or more, heads, head_dim]
        Keys and values may have fewer heads, each for as many neighbouring heads of queries.
    log_weight : float tensor [tokens], or None
    starts : int32 tensor [batch + 1]
    positions : int64 tensor [tokens]
    scale : float
    window : int, or None
    wanted : bool
        Whether importance is computed.
    dropout : float
        Share of the probabilities that are 0 in the context; the others grow to make up for them.
    seed : int
        Of 32 bits. Which probabilities are dropped follows from it, from the head and from the two tokens.
    bias : TableBias, optional
    rows : int64 tensor [rows], optional
        The tokens whose context is wanted, in order. Default: all.
    row_starts : int32 tensor [batch + 1], optional
        Where each sequence begins among `rows`.

    Returns
    -------
    context : tensor [rows, heads * head_dim]
    importance : float32 tensor [tokens], or [0] where it is not wanted
    """
    log_weight = None if log_weight is None else log_weight.float()
    table = None if bias is None else bias.table.float()
    inputs = query, key, value, log_weight, table
    entries = None if bias is None else bias.entries.int()
    terms = Terms(starts, positions, scale, -1 if window is None else window, wanted, dropout, seed, entries)
    if not native.wants_gradients(*(x for x in inputs if x is not None)):
        return _forward(*inputs, terms, rows, row_starts)
    context, importance = _Differentiable.apply(*inputs, terms)
    return context if rows is None else context.index_select(0, rows), importance


class Terms(NamedTuple):
    """What a call needs beside the tensors that may have gradients."""

    starts: Tensor
    positions: Tensor
    scale: float = 1.0
    window: int = -1  # for none
    wanted: bool = False  # of the importance
    dropout: float = 0.0
    seed: int = 0
    entries: Tensor | None = None  # of a bias


class _Differentiable(torch.autograd.Function):
    """The call and its way back, for the context of all tokens."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        log_weight: Tensor | None,
        table: Tensor | None,
        terms: Terms,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(query, key, value, log_weight, table)
        ctx.terms = terms
        ctx.set_materialize_grads(False)
        return _forward(query, key, value, log_weight, table, terms)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, context_grad: Tensor | None, importance_grad: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        query, key, value, log_weight, table = _readable(*ctx.saved_tensors)
        tokens, (_, heads, _) = len(ctx.terms.positions), query.shape
        if context_grad is None:
            context_grad = query.new_zeros(tokens, *query.shape[1:])
        if not ctx.terms.wanted:
            importance_grad = None
        query_grad, key_grad, value_grad = (query.new_empty(query.shape) for _ in range(3))
        for grad in (query_grad, key_grad, value_grad):
            grad[tokens:] = 0  # the native code leaves rows after the tokens alone
        weight_grad = None if log_weight is None else log_weight.new_empty(heads, tokens)
        batch = len(ctx.terms.starts) - 1
        table_grad = None if table is None else table.new_zeros(batch, *table.shape)
        gradients = Gradients(
            problem=problem_of(query, key, value, log_weight, ctx.terms, table),
            context_grad=context_grad.to(query.dtype).contiguous(),
            importance_grad=None if importance_grad is None else importance_grad.contiguous(),
            query_grad=query_grad,
            key_grad=key_grad,
            value_grad=value_grad,
            log_weight_grad=weight_grad,
            table_grad=table_grad,
        )
        native.call("attend_backward", gradients, _products(query, ctx.terms))
        summed = [None if grad is None else grad.sum(0) for grad in (weight_grad, table_grad)]
        if (fewer := key.shape[1]) < heads:
            key_grad, value_grad = (x.unflatten(1, (fewer, -1)).sum(2) for x in (key_grad, value_grad))
        return query_grad, key_grad, value_grad, *summed, None


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_weight: Tensor | None,
    table: Tensor | None,
    terms: Terms,
    rows: Tensor | None = None,
    row_starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    tokens, (_, heads, dim) = len(terms.positions), query.shape
    if not _alike(query, key, value):
        raise ValueError("query, key and value must be of one shape and dtype, but for heads in groups")
    if len(query) < tokens:
        raise ValueError("there are fewer queries than positions")
    if log_weight is not None and log_weight.shape != (tokens,):
        raise ValueError("log_weight must be one number for every token")
    query, key, value, log_weight, table = _readable(query, key, value, log_weight, table)
    context = query.new_empty(tokens if rows is None else len(rows), heads * dim)
    importance = query.new_empty(tokens if terms.wanted else 0, dtype=torch.float32)
    problem = problem_of(query, key, value, log_weight, terms, table)
    problem["context"], problem["rows"], problem["row_starts"] = context, rows, row_starts
    if terms.wanted:
        problem["importance"], problem["received"] = importance, importance.new_empty(heads, tokens)
    native.call("attend", problem, _products(query, terms))
    return context, importance


def problem_of(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_weight: Tensor | None,
    terms: Terms,
    table: Tensor | None = None,
) -> Problem:
    """What goes into attention, not yet what comes out."""
    _, heads, dim = query.shape
    return Problem(
        query=query,
        key=key,
        value=value,
        query_stride=query.stride()[:2],
        key_stride=key.stride()[:2],
        value_stride=value.stride()[:2],
        starts=terms.starts,
        positions=terms.positions,
        log_weight=log_weight,
        table=table,
        entries=terms.entries,
        rows=None,
        row_starts=None,
        context=None,
        received=None,
        importance=None,
        batch=len(terms.starts) - 1,
        tokens=len(terms.positions),
        heads=heads,
        dim=dim,
        groups=max(1, heads // max(1, key.shape[1])),
        window=terms.window,
        numbers=0 if table is None else table.shape[1],
        reach=0 if terms.entries is None else len(terms.entries) // 2,
        scale=terms.scale,
        dropout=terms.dropout,
        seed=terms.seed,
        bf16=query.dtype == torch.bfloat16,
    )


def _alike(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether heads of keys and values fit those of queries, one or a group of them."""
    (tokens, heads, dim), (others, fewer, width) = query.shape, key.shape
    fit = heads == fewer or (0 < fewer < heads and heads % fewer == 0)
    return (
        fit
        and (others, width) == (tokens, dim)
        and value.shape == key.shape
        and query.dtype == key.dtype == value.dtype
    )


def _readable(
    query: Tensor, key: Tensor, value: Tensor, log_weight: Tensor | None, table: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """As native code reads them: dims, log weights, and numbers of a head, side by side."""
    query, key, value = (x if x.stride(2) == 1 else x.contiguous() for x in (query, key, value))
    log_weight, table = (None if x is None else x.contiguous() for x in (log_weight, table))
    return query, key, value, log_weight, table


def _products(query: Tensor, terms: Terms) -> int:
    """Roughly how many multiply-adds a product of queries and keys takes."""
    tokens, heads, dim = query.shape
    return tokens * tokens * heads * dim // max(1, len(terms.starts) - 1)
