"""The contract of a pruner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from thresher.errors import UserError
from thresher.packed import PackedBatch
from thresher.plan import Plan
from thresher.pruners.rule import Rule

SMALLEST = 1e-3  # dial from which a budget can still be reached by factors: one at 0 would stay there


@dataclass(frozen=True)
class LayerView:
    """What a pruner sees of a layer, between its attention and the rest of it.

    Attributes
    ----------
    index : int
        Place of the layer, from 0.
    hidden : tensor [tokens, dim]
        The layer's input.
    keys : tensor [tokens, heads, head_dim]
        Keys of the layer's attention.
    packed : PackedBatch
        Where the tokens lie.
    received : callable
        Computes the importance.
    """

    index: int
    hidden: Tensor
    keys: Tensor
    packed: PackedBatch
    received: Callable[[], Tensor]

    @property
    def importance(self) -> Tensor:
        """float tensor [tokens]: attention received, in fair shares, which is mean 1 over each sequence's
        alive tokens. It is computed when it is first asked for."""
        return self.received()


@dataclass(frozen=True)
class Decision:
    """What a pruner answers for one layer.

    Attributes
    ----------
    keep : bool tensor [tokens], or None
        False drops the token for good. None keeps all.
    log_gate : float tensor [tokens], or None
        Log of the gate, the differentiable stand-in for keep, while the soft stage runs.
    """

    keep: Tensor | None = None
    log_gate: Tensor | None = None

    @cached_property
    def survivors(self) -> Tensor | None:
        """int64 [survivors]: places of the tokens that stay, in order; None where all stay."""
        return None if self.keep is None else self.keep.nonzero().squeeze(1)


@dataclass(frozen=True)
class Sample:
    """One layer of some texts, and how much the base model's outputs depend on each token.

    Attributes
    ----------
    layer : LayerView
    saliency : float tensor [tokens]
        Norm of the gradient of the outputs by the token's hidden state after the layer: 0 or more.
    free : bool tensor [tokens]
        False at the tokens that are never pruned.
    """

    layer: LayerView
    saliency: Tensor
    free: Tensor


class Pruner(nn.Module):
    """Chooses, layer by layer, the tokens that stay. Prefix and suffix stay whatever a pruner answers.

    A pruner has no mode: how a call runs is said by its `Plan`.

    Parameters
    ----------
    layers, dim : int
        Layers of the model, and width of its hidden states. Further keyword arguments of a subclass are its
        options: they come from ``PruningConfig.options`` and must be JSON values.

    Attributes
    ----------
    drops : bool
        Whether it ever drops a token.
    adjustable : bool
        Whether it has `dials`, by which a budget can be fitted and held.
    learns : bool
        Whether it has parameters to learn in a soft stage, with gates.
    ladder : bool
        Whether it has an option ``budgets`` and holds dials for each of them: see `Ladder`.
    budgets : tuple of float
        FLOPs ratios that it was trained for.
    fits : bool
        Whether `fit` starts its scores from data.
    advice : str
        What else may help where a budget is out of reach, as an end of the error's last sentence.
    accumulates : bool
        How the model uses gates in the soft stage. True is the exact form: gates multiply up over the layers,
        weigh the token as key and as voter, and tend to the hard model. False is the paper's form: each
        layer's output is multiplied by that layer's gate.
    """

    drops: ClassVar[bool] = True
    adjustable: ClassVar[bool] = False
    learns: bool = False
    ladder: ClassVar[bool] = False
    budgets: tuple[float, ...] = ()
    fits: bool = False
    advice: ClassVar[str] = ""
    accumulates: bool = True

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if "rule" not in own and not own.keys().isdisjoint(("forward", "decide", "open")):
            cls.rule = Pruner.rule  # type: ignore[method-assign]  # that of another method tells nothing of this

    def __init__(self, layers: int, dim: int):
        super().__init__()
        self.layers, self.dim = layers, dim

    def forward(self, layer: LayerView, plan: Plan) -> Decision:
        """Decide for one layer.

        Choose by sequence, never by batch, and draw no random numbers that depend on a token's place in the
        batch. Another thread may run another plan at the same time, so nothing is noted in `self`.

        Parameters
        ----------
        layer : LayerView
        plan : Plan
            Which budget is in use, and whether gates stand in for drops.
        """
        raise NotImplementedError

    def rule(self, plan: Plan) -> Rule | None:
        """What `forward` does in all layers, as data, where it can be said so. None: `forward` must be asked.

        Parameters
        ----------
        plan : Plan
            Without a soft stage.
        """
        return None

    def dials(self, rung: int = 0) -> Tensor | None:
        """What a budget scales, as a view to change in place: 0 prunes nothing, a larger number prunes
        more, and no dial is below 0. None where how much is pruned cannot be changed.

        Parameters
        ----------
        rung : int
            Place of the budget whose dials are wanted.
        """
        return None

    def rescale(self, factor: float, rung: int = 0) -> None:
        """Prune harder (`factor` above 1) or milder (below 1), in place. Factor 0 prunes nothing.

        A dial at 0 counts as one at `SMALLEST`, because no factor would move it.

        Parameters
        ----------
        factor : float
        rung : int
            Place of the budget whose dials are rescaled, whichever budget is in use.

        Raises
        ------
        UserError
            If there are no dials.
        """
        if (dials := self.dials(rung)) is None:
            raise UserError(f"{type(self).__name__} always prunes the same.")
        dials.clamp_(min=SMALLEST).mul_(factor)

    def start(self) -> None:
        """Set the dials to where training begins, from which each budget is then fitted."""

    def fit(self, samples: Iterable[Sample]) -> None:
        """Start the scores from data, where `fits`."""

    def hold(self, budgets: Sequence[float], table: Tensor) -> None:
        """Hold dials ``[budgets, ...]`` for other budgets than before, where it is a ladder."""
        raise NotImplementedError(f"{type(self).__name__} holds one budget")

    def score_parameters(self) -> list[nn.Parameter]:
        """Parameters that make scores, which learn at a rate of their own; the others are dials."""
        return []

    def clamp(self) -> None:
        """Bring learned parameters back into their range, after each optimiser step."""

    def rung_of(self, budget: float) -> int:
        """Place of the settings for this budget.

        Raises
        ------
        UserError
            If it is no number, or was not trained for; the message says for which it was.
        """
        if not isinstance(budget, int | float):
            raise UserError(f"A budget is a number, as 0.5, not {budget!r:.100}.")
        near = [rung for rung, known in enumerate(self.budgets) if abs(known - budget) < 1e-6]
        if not near:
            held = ", ".join(f"{b:g}" for b in sorted(self.budgets)) or "none"
            raise UserError(
                f"This model holds no budget {budget:g}; it holds {held}. "
                "Prune it to several at once: `thresher prune`, or thresher.training.prune."
            )
        return near[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # .to(bfloat16) moves the model, but thresholds stay float32: rounded, they flip decisions.
        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            if not tensor.is_floating_point():
                return found
            return (
                torch.empty_like(tensor, device=found.device) if tensor.is_meta else tensor.to(found.device)
            )

        return super()._apply(moved, recurse)
