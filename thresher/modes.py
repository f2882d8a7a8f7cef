"""How a model runs where a call does not say: its mode, its budget, and blocks that change them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Self

from torch import nn

from thresher.conventions import Conventions
from thresher.errors import UserError
from thresher.plan import Plan, Soft, Turns, dense_block, is_dense
from thresher.pruners import Pruner


class Modes(Conventions):
    """The part of `PrunedModel` that makes a `Plan` of each call.

    Attributes
    ----------
    rung : int
        Place of the budget in use among those of the pruner, for calls that name none.
    soft : Soft or None
        The soft stage, which calls in training mode are in.
    precision : str or None
        What the model was made ready to run in; None where it can be trained.
    """

    pruner: Pruner

    def __init__(self) -> None:
        super().__init__()
        self.rung = 0
        self.soft: Soft | None = None
        self.precision: str | None = None
        self._turns = Turns()
        self._rates: list[tuple[nn.Module, str, float]] = []  # of dropout, while there is none
        self._undropped = 0  # blocks of `without_dropout` that are open

    def plan(self, budget: float | None = None, dense: bool | None = None) -> Plan:
        """How a call that begins now runs; parameters as of `forward`."""
        training = self.training
        return Plan(
            dense=is_dense(self) if dense is None else dense,
            rung=self.rung if budget is None else self.pruner.rung_of(budget),
            soft=self.soft if training else None,
            training=training,
            dropout=training and not self._undropped,
        )

    def train(self, mode: bool = True) -> Self:
        """As of any Module; refused where `for_inference` has converted the weights. Calls that other threads
        have begun end first, so that none runs in two modes."""
        if mode and self.precision is not None:
            raise UserError(
                "This model was made ready for inference; load it again without a precision to train it."
            )
        self._turns.change(lambda: nn.Module.train(self, mode))
        return self

    def evaluating(self) -> AbstractContextManager[None]:
        """Be in evaluation mode inside the ``with`` block, and then in the mode of before. Meanwhile, other
        threads that call `train` wait."""
        return self._turns.evaluation(self)

    @contextmanager
    def dense(self) -> Iterator[Self]:
        """Run without pruning inside the ``with`` block: the same weights, every token kept. Only calls of
        the thread, or asyncio task, that is in the block run so."""
        with dense_block(self):
            yield self

    @contextmanager
    def without_dropout(self) -> Iterator[Self]:
        """Train without dropout, of hidden states and of attention, inside the ``with`` block, in all
        threads. Blocks may be nested."""
        if not self._undropped:
            self._rates = [rate for module in self.model.modules() for rate in _rates(module)]
        self._undropped += 1
        try:
            for module, name, _ in self._rates:
                setattr(module, name, 0.0)
            yield self
        finally:
            self._undropped -= 1
            for module, name, rate in () if self._undropped else self._rates:
                setattr(module, name, rate)

    @property
    def budgets(self) -> tuple[float, ...]:
        """FLOPs ratios that the model was trained for; the first is in use until `set_budget`."""
        return self.pruner.budgets

    def set_budget(self, budget: float) -> None:
        """Use the thresholds for one of `budgets` from the next call on, in all threads; a call that has
        begun ends as it began. For one call alone, pass it ``budget``. A saved model starts at the first.

        OpenVINO in int8 has fixed scales: calibrate it at the largest budget, where it meets most tokens.

        Raises
        ------
        UserError
            If the model holds none for it; the message says for which it does.
        """
        self.rung = self.pruner.rung_of(budget)

    @contextmanager
    def at(self, rung: int) -> Iterator[Self]:
        """Use the dials of this place in the ladder inside the ``with`` block, in all threads."""
        before, self.rung = self.rung, rung
        try:
            yield self
        finally:
            self.rung = before


def _rates(module: nn.Module) -> Iterator[tuple[nn.Module, str, float]]:
    """The rates of dropout that a module holds: of a module that drops, or plain numbers, as BART's and T5's
    layers have them."""
    for name, value in vars(module).items():
        rate = name == "p" if isinstance(module, nn.Dropout) else name.endswith("dropout")
        if rate and type(value) in (int, float):
            yield module, name, value
