"""How one call of a model runs, read once at its start, so that no other thread can change it halfway."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Plan:
    """How one call runs.

    Attributes
    ----------
    dense : bool
        Whether every token is kept.
    rung : int
        Place of the budget in use among those of the pruner.
    training : bool
        Whether the model is in training mode.
    learning : bool
        Whether gates stand in for drops: in the soft stage of training.
    dropout : bool
        Whether attention drops some of its probabilities.
    """

    dense: bool = False
    rung: int = 0
    training: bool = False
    learning: bool = False
    dropout: bool = False


_depths: ContextVar[dict[int, int]] = ContextVar("depths")  # of `dense` blocks, by the model's id


def is_dense(model: object) -> bool:
    """Whether this thread, or asyncio task, is in a `dense_block` of the model."""
    return _depths.get({}).get(id(model), 0) > 0


@contextmanager
def dense_block(model: object) -> Iterator[None]:
    """Ask for dense calls in the ``with`` block. Blocks may be nested, and left in any order."""
    _deepen(model, 1)
    try:
        yield
    finally:
        _deepen(model, -1)


def _deepen(model: object, by: int) -> None:
    depths = _depths.get({})
    depth = max(0, depths.get(id(model), 0) + by)
    others = {key: value for key, value in depths.items() if key != id(model)}
    _depths.set(others | ({id(model): depth} if depth else {}))


class Turns:
    """Lets calls of a model run side by side, and lets its mode change only while none runs.

    A thread that is in a call itself waits for none, or two such threads would wait for each other. A copy of
    the model has turns of its own.
    """

    def __init__(self) -> None:
        self._ended = threading.Condition()
        self._calls: Counter[int] = Counter()  # by thread
        self._changes = 0  # that wait
        self._evaluations = 0
        self._resume = False  # training, after the last of them

    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Have the mode stay as it is in the ``with`` block."""
        me = threading.get_ident()
        with self._ended:
            # Who comes after a change that waits lets it pass, or it would never have its turn; but for the
            # calls of an evaluation, which may be other threads', and for whose end the change waits.
            self._ended.wait_for(lambda: not self._changes or self._evaluations or me in self._calls)
            self._calls[me] += 1
        try:
            yield
        finally:
            with self._ended:
                self._leave()

    def change(self, set_mode: Callable[[], object]) -> None:
        """Change the mode, once the calls of all other threads have ended."""
        with self._ended:
            self._alone()
            set_mode()

    @contextmanager
    def evaluation(self, model: nn.Module) -> Iterator[None]:
        """Have the model in evaluation mode in the ``with`` block, and then as it was. Blocks may be nested,
        and be in several threads."""
        with self._ended:
            if model.training:
                self._alone()
                nn.Module.train(model, False)
                self._resume = True
            self._evaluations += 1
            self._calls[threading.get_ident()] += 1
        try:
            yield
        finally:
            with self._ended:
                self._evaluations -= 1
                self._leave()
                if self._resume and not self._evaluations:
                    self._alone()
                if self._resume and not self._evaluations:
                    nn.Module.train(model, True)
                    self._resume = False

    def _leave(self) -> None:
        me = threading.get_ident()
        self._calls[me] -= 1
        if not self._calls[me]:
            del self._calls[me]
            self._ended.notify_all()

    def _alone(self) -> None:
        """Wait, with the lock held before and after, until no thread is in a call."""
        if threading.get_ident() in self._calls:
            return
        self._changes += 1
        self._ended.wait_for(lambda: not self._calls)
        self._changes -= 1
        self._ended.notify_all()
