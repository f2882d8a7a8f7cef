"""The contract of a pruner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from thresher.errors import UserError
from thresher.packed import PackedBatch
from thresher.plan import Plan


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
    def survivors(self) -> Tensor:
        """int64 [survivors]: places of the tokens that stay, in order."""
        assert self.keep is not None
        return self.keep.nonzero().squeeze(1)


class Pruner(nn.Module):
    """Chooses, layer by layer, the tokens that stay. The prefix stays whatever a pruner answers.

    Parameters
    ----------
    layers, dim : int
        Layers of the model, and width of its hidden states. Further keyword arguments of a subclass are
        its options: they come from ``PruningConfig.options`` and must be JSON values.

    Attributes
    ----------
    adjustable : bool
        True if `rescale` makes it prune harder or milder, which is what holds a budget.
    learns : bool
        True if it has parameters to learn in a soft stage, with gates.
    leaves_prefix : bool
        True if it leaves nothing but the prefix at the end: refused where the head reads more.
    dials : tuple of str
        Names of tensors in its state that say how hard it prunes: 0 prunes nothing, and none is below.
    ladder : bool
        True if it has an option ``budgets`` and can hold settings for several.
    accumulates : bool
        How the model uses gates in the soft stage. True is the exact form: they multiply up over
        the layers, weigh the token as key and as voter, and tend to the hard model. False is the
        paper's form: each layer's output is multiplied by that layer's gate.
    budgets : tuple of float
        FLOPs ratios that it was trained for. More than one is a ladder: it holds settings for each.
    rung : int
        Which of them is in use, where a call asks for none.
    soft : bool
        Set by training while the soft stage runs.
    temperature : float
        Width of the gate, set by training.
    faint : float
        How alive a token must be, from 0 to 1, to be computed any further in the soft stage with exact gates;
        set by training, to save time.
    """

    adjustable: ClassVar[bool] = False
    learns: bool = False
    leaves_prefix: ClassVar[bool] = False
    dials: ClassVar[tuple[str, ...]] = ()
    ladder: ClassVar[bool] = False
    budgets: tuple[float, ...] = ()

    def __init__(self, layers: int, dim: int):
        super().__init__()
        self.layers, self.dim = layers, dim
        self.accumulates = True
        self.rung = 0
        self.soft = False
        self.temperature = 1.0
        self.faint = 0.0

    def forward(
        self, layer: int, importance: Tensor, hidden: Tensor, packed: PackedBatch, plan: Plan
    ) -> Decision:
        """Decide for one layer, between its attention and the rest of it.

        Parameters
        ----------
        layer : int
            From 0.
        importance : float tensor [tokens]
            Attention received, in fair shares: mean 1 over each sequence's alive tokens.
        hidden : tensor [tokens, dim]
            The layer's input.
        packed : PackedBatch
            Where the tokens lie. Choose by sequence, never by batch, and draw no random numbers
            that depend on a token's place in the batch (but for gates, while learning).
        plan : Plan
            How this call runs: which budget is in use, and whether gates stand in for drops. Another thread
            may run another plan, so that nothing else may be asked for it, nor noted here.
        """
        raise NotImplementedError

    @property
    def learning(self) -> bool:
        """True where gates stand in for drops: while training in the soft stage, never in evaluation."""
        return self.training and self.soft

    def score_parameters(self) -> list[nn.Parameter]:
        """Parameters that make scores, not thresholds: they learn at a rate of their own."""
        return []

    def prunes(self, layer: int, plan: Plan) -> bool:
        """False where nothing can be dropped, so that the layer's importance need not be computed."""
        return True

    def set_budget(self, budget: float) -> None:
        """Use the settings for this budget. Errors as of `rung_of`."""
        self.rung = self.rung_of(budget)

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
                "Train it for several at once by `thresher prune --budget 0.7,0.5,0.3`."
            )
        return near[0]

    def rescale(self, factor: float) -> None:
        """Prune harder (`factor` above 1) or milder (below 1), in place. Factor 0 prunes nothing."""
        raise NotImplementedError(f"{type(self).__name__} is not adjustable")

    def clamp(self) -> None:
        """Bring learned parameters back into their range, after each optimiser step."""

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
