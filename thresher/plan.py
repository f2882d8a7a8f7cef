"""How one call of a model runs, read once at its start, so that no other thread can change it halfway."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from weakref import WeakSet, ref

from torch import nn


@dataclass(frozen=True)
class Soft:
    """How gates stand in for drops, in the soft stage of training.

    Attributes
    ----------
    temperature : float
        Width of the gates.
    faint : float
        How alive a token must be, from 0 to 1, to be computed any further with exact gates: a larger value
        saves time.
    """

    temperature: float = 1.0
    faint: float = 0.0


@dataclass(frozen=True)
class Plan:
    """How one call runs.

    Attributes
    ----------
    dense : bool
        Whether every token is kept.
    rung : int
        Place of the budget in use among those of the pruner.
    soft : Soft, optional
        Gates stand in for drops. None: tokens are dropped.
    training : bool
        Whether the model is in training mode.
    dropout : bool
        Whether attention drops some of its probabilities.
    """

    dense: bool = False
    rung: int = 0
    soft: Soft | None = None
    training: bool = False
    dropout: bool = False


class _Block:
    """A `dense_block` that is open, or was."""

    def __init__(self, model: object) -> None:
        self.model = ref(model)
        self.open = True


_blocks: ContextVar[tuple[_Block, ...]] = ContextVar(
    "blocks", default=()
)  # that this thread or task has entered


def is_dense(model: object) -> bool:
    """Whether this thread, or asyncio task, is in a `dense_block` of the model."""
    return any(block.open and block.model() is model for block in _blocks.get())


@contextmanager
def dense_block(model: object) -> Iterator[None]:
    """Ask for dense calls in the ``with`` block. Blocks may be nested, and left in any order and anywhere."""
    block = _Block(model)
    _blocks.set((*(other for other in _blocks.get() if other.open), block))
    try:
        yield
    finally:
        block.open = False


class Turns:
    """Lets calls of a model run side by side, and lets its mode change only while none runs.

    A thread that is in a call itself waits for none, or two such threads would wait for each other. A copy of
    the model has turns of its own, and a forked process begins anew: the threads of its calls are not there.
    """

    def __init__(self) -> None:
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._ended = threading.Condition()
        self._calls: Counter[int] = Counter()  # by the thread that began them
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
            # A call that comes after a waiting change lets the change pass, or the change would never have
            # its turn. The calls of an evaluation go first, because the change waits for their end.
            self._ended.wait_for(lambda: not self._changes or self._evaluations or me in self._calls)
            self._calls[me] += 1
        try:
            yield
        finally:
            with self._ended:
                self._leave(me)

    def change(self, set_mode: Callable[[], object]) -> None:
        """Change the mode, once the calls of all other threads have ended."""
        with self._ended:
            self._alone()
            set_mode()
            self._resume = False  # the last request counts

    @contextmanager
    def evaluation(self, model: nn.Module) -> Iterator[None]:
        """Have the model in evaluation mode in the ``with`` block, and then as it was, unless another
        mode was asked for meanwhile. Blocks may be nested, and be in several threads."""
        me = threading.get_ident()
        with self._ended:
            if any(module.training for module in model.modules()):
                self._alone()
                self._resume = model.training
                nn.Module.train(model, False)
            self._evaluations += 1
            self._calls[me] += 1
        try:
            yield
        finally:
            with self._ended:
                self._evaluations -= 1
                self._leave(me)
                if self._resume and not self._evaluations:
                    self._alone()
                if self._resume and not self._evaluations:
                    nn.Module.train(model, True)
                    self._resume = False

    def _leave(self, thread: int) -> None:
        self._calls[thread] -= 1
        if not self._calls[thread]:
            del self._calls[thread]
            self._ended.notify_all()

    def _alone(self) -> None:
        """Wait, with the lock held before and after, until no thread is in a call."""
        if threading.get_ident() in self._calls:
            return
        self._changes += 1
        try:
            self._ended.wait_for(lambda: not self._calls)
        finally:  # Ctrl-C too
            self._changes -= 1
            self._ended.notify_all()


_all: WeakSet[Turns] = WeakSet()


def _after_fork() -> None:
    for turns in _all:
        turns._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
