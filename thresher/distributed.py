"""Training on several processes, where every parameter needs a gradient in every step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn


def take_part(
    logits: Tensor, pruner: nn.Module, learning: bool, others: Iterable[nn.Parameter] = ()
) -> Tensor:
    """Make the pruner's parameters, and others that a step may leave out, part of the graph, so that
    DistributedDataParallel need not search for parameters without a gradient.

    Parameters
    ----------
    logits : tensor [batch, labels]
    pruner : nn.Module
        Its parameters get gradients of zero in addition to their own.
    learning : bool
        True in the soft stage. In the hard stage no optimiser may move what the budget holds, but a gradient
        of zero is enough for momentum and weight decay. So gradients are gone when backward has ended, and
        optimisers leave out parameters without one.
    others : iterable of parameters
        They learn in both stages.

    Returns
    -------
    tensor [batch, labels]
        Equal to `logits`; `logits` itself where there is nothing to do.
    """
    parameters, learned = (
        [parameter for parameter in some if parameter.requires_grad] for some in (pruner.parameters(), others)
    )
    together = distributed.is_available() and distributed.is_initialized()
    stale = not learning and any(parameter.grad is not None for parameter in parameters)
    if (
        not (parameters or learned)
        or not (together or stale)
        or not (torch.is_grad_enabled() and logits.requires_grad)
    ):
        return logits
    return _TakePart.apply(logits, [] if learning else parameters, *parameters, *learned)


class _TakePart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, forget: list[nn.Parameter], *parameters: Tensor) -> Tensor:
        ctx.forget = forget
        ctx.save_for_backward(*parameters)
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if ctx.forget:
            _after_backward(lambda: _after_backward(lambda: _forget(ctx.forget)))
        return *gradients, None, *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)


def _after_backward(call: Any) -> None:
    """Run when the backward pass has ended, after all that was asked for before. Twice, one in the other,
    is after DistributedDataParallel too, which asks at the last gradient, and then writes them anew."""
    torch.autograd.Variable._execution_engine.queue_callback(call)


def _forget(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
