"""One model, many threads: every call answers as if it were alone."""

from __future__ import annotations

import asyncio
import copy
import faulthandler
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from thresher import PrunedModel, UserError
from thresher.inference.predict import predict
from thresher.inputs.text import TextEncoder
from thresher.plan import Soft, is_dense

from . import toy
from .cases import LENGTHS, build
from .tiny import random_inputs

THREADS = 8
BUDGETS = (0.8, 0.6, 0.4)  # the first is the default; calls ask for the others


def ladder(dtype: torch.dtype = torch.float32) -> PrunedModel:
    """A model whose answers in all modes are far apart; every layer drops."""
    pruned = build("bert", options={"budgets": list(BUDGETS)}, dtype=dtype)
    for rung, scale in enumerate((0.7, 1.0, 1.3)):
        pruned.pruner.table.data[rung] = scale * torch.tensor([0.5, 0.625, 0.75, 0.625])
    pruned.pruning.offset = [0.0, 1.0, -1.0]
    return pruned


def dense_block(model: PrunedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with model.dense():
        return model(**batch).logits


def plain(model: PrunedModel, batch: dict[str, torch.Tensor], **how: object) -> torch.Tensor:
    return model(**batch, **how).logits


MODES: dict[str, Callable[..., torch.Tensor]] = {
    "default": plain,
    "dense block": dense_block,
    "budget": partial(plain, budget=BUDGETS[1]),
    "another": partial(plain, budget=BUDGETS[2], dense=False),
}


@pytest.fixture
def calls(request: pytest.FixtureRequest) -> int:
    return 2000 if request.config.getoption("--long") else 25


def wrong(
    threads: int,
    calls: int,
    ask: Callable[[int, int], torch.Tensor],
    expected: Callable[[int, int], torch.Tensor],
) -> int:
    """How many answers, of `threads` times `calls`, are not the expected ones."""
    ready = threading.Barrier(threads)

    def run(thread: int) -> int:
        ready.wait()
        with torch.inference_mode():
            return sum(
                not torch.allclose(ask(thread, call), expected(thread, call), atol=1e-5, rtol=1e-5)
                for call in range(calls)
            )

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(run, range(threads)))


@pytest.mark.parametrize(
    ("precision", "engine"),
    [("fp32", "torch"), ("bf16", "torch"), ("int8", "torch"), ("fp32", "openvino"), (None, None)],
)
def test_modes_do_not_meet(precision, engine, calls):
    if engine == "openvino":
        pytest.importorskip("openvino")
    model = ladder()
    batches = [random_inputs(model.model, LENGTHS, seed=seed) for seed in range(3)]
    if precision:
        model.for_inference(precision, engine)
    with torch.inference_mode():
        answers = [[mode(model, batch) for batch in batches] for mode in MODES.values()]
    for at, one in enumerate(answers):
        assert all((one[0] - other[0]).abs().max() > 1e-3 for other in answers[:at])
    modes = list(MODES.values())

    def ask(thread, call):
        return modes[(thread + call) % 4](model, batches[call % 3])

    assert wrong(THREADS, calls, ask, lambda thread, call: answers[(thread + call) % 4][call % 3]) == 0


def test_a_call_keeps_the_budget_that_it_began_with(calls):
    """`set_budget` is for all threads: an answer may be of any budget, but not of two."""
    model = ladder()
    batch = random_inputs(model.model, LENGTHS)
    with torch.inference_mode():
        answers = torch.stack([model(**batch, budget=budget).logits for budget in BUDGETS])

    def ask(thread, call):
        model.set_budget(BUDGETS[(thread + call) % 3])
        found = model(**batch).logits
        return found - answers[(answers - found).flatten(1).abs().amax(1).argmin()]

    assert wrong(THREADS, calls, ask, lambda *_: torch.zeros_like(answers[0])) == 0


def test_training_mode_waits_for_calls_and_evaluations(calls):
    """While one thread goes from mode to mode, the others' evaluations are right."""
    model, ended = ladder(), threading.Event()
    encoder = TextEncoder(toy.tokenizer(), 32)
    rows = encoder.encode(["a good film", "a bad film", "very good"])
    expected = predict(model, encoder, rows).logits

    def toggle():
        while not ended.is_set():
            model.train()
            model.eval()

    toggling = threading.Thread(target=toggle)
    toggling.start()
    try:
        assert (
            wrong(
                4,
                calls,
                lambda *_: torch.from_numpy(predict(model, encoder, rows).logits),
                lambda *_: torch.from_numpy(expected),
            )
            == 0
        )
    finally:
        ended.set()
        toggling.join()
    assert not model.training


def test_evaluation_gives_the_mode_back():
    model = ladder().train()
    with model.evaluating(), model.evaluating():
        assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.model.modules())
    with pytest.raises(ZeroDivisionError), model.evaluating():
        1 / 0  # noqa: B018
    assert model.training


def in_time(*runs: Callable[[], object]) -> bool:
    """Whether all of some functions, each in a thread, end."""
    threads = [threading.Thread(target=run, daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return not any(thread.is_alive() for thread in threads)


def test_threads_in_evaluations_do_not_wait_for_each_other():
    model, both = ladder().train(), threading.Barrier(2)

    def run():
        with model.evaluating():
            both.wait()
            model.eval()
            model.train()

    assert in_time(run, run)


def test_a_call_that_waits_for_a_mode_runs_in_that_mode():
    """All of it: gates of the mode of before would meet modules of the new one."""
    model, answers = ladder(), []
    batch = random_inputs(model.model, LENGTHS)
    expected = plain(model, batch)
    model.soft = Soft(0.1)
    model.train()

    def call():
        with torch.no_grad():
            answers.append(plain(model, batch))

    changes, waits = threading.Thread(target=model.eval), threading.Thread(target=call)
    with ThreadPoolExecutor(1) as pool, model._turns.call():
        changes.start()
        while not model._turns._changes:
            pass
        waits.start()
        pool.submit(waits.join, 0.2).result()  # time for it to come to where it waits
    changes.join()
    waits.join()
    assert torch.equal(answers[0], expected)


def test_an_evaluation_may_hand_calls_to_other_threads():
    model, waits = ladder(), threading.Event()
    batch = random_inputs(model.model, LENGTHS)

    def evaluate():
        with model.evaluating(), ThreadPoolExecutor(2) as pool:
            waits.set()
            while not model._turns._changes:  # until the other thread waits
                pass
            list(pool.map(lambda _: plain(model, batch), range(4)))

    def train():
        waits.wait()
        model.train()

    assert in_time(evaluate, train)
    assert model.training


def test_an_evaluation_is_one_of_every_part():
    """A part in training mode would answer by gates, or drop at random."""
    model = ladder()
    model.pruner.train()
    model.soft = Soft()
    with model.evaluating():
        assert not any(module.training for module in model.modules())
        assert model.plan().soft is None
    assert not model.training


def test_blocks_may_be_left_in_any_order():
    model = ladder()
    batch = random_inputs(model.model, LENGTHS)
    expected = plain(model, batch)
    one, two = model.dense(), model.dense()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert torch.equal(plain(model, batch), plain(model, batch, dense=True))
    two.__exit__(None, None, None)
    assert torch.equal(plain(model, batch), expected)
    assert not is_dense(model)

    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert max(rates) > 0
    one, two = model.without_dropout(), model.without_dropout()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert not any(module.p for module in model.modules() if isinstance(module, nn.Dropout))
    two.__exit__(None, None, None)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == rates


def test_a_call_says_more_than_a_block():
    model = ladder()
    batch = random_inputs(model.model, LENGTHS)
    pruned, dense = plain(model, batch), plain(model, batch, dense=True)
    assert (pruned - dense).abs().max() > 1e-3
    with model.dense():
        assert torch.equal(plain(model, batch), dense)
        assert torch.equal(plain(model, batch, dense=False), pruned)
    with pytest.raises(UserError, match=r"holds no budget 0\.3"):
        model(**batch, budget=0.3)


def test_blocks_of_asyncio_tasks_do_not_meet():
    model = ladder()

    async def run(dense: bool) -> bool:
        if not dense:
            await asyncio.sleep(0)
            return is_dense(model)
        with model.dense():
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return is_dense(model)

    async def both() -> list[bool]:
        return await asyncio.gather(run(True), run(False))

    assert asyncio.run(both()) == [True, False]


def test_blocks_are_left_from_elsewhere():
    """By another thread, by the end of a generator, and by a task that began in the block."""
    model = ladder()
    block = model.dense()
    block.__enter__()
    assert is_dense(model)
    thread = threading.Thread(target=block.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert not is_dense(model)

    async def answers():
        with model.dense():
            yield is_dense(model)

    async def run() -> list[bool]:
        ended = asyncio.Event()

        async def later() -> bool:
            await ended.wait()
            return is_dense(model)

        async for found in answers():
            seen = [found]
            break
        with model.dense():
            task = asyncio.create_task(later())
            await asyncio.sleep(0)
        ended.set()
        return [*seen, await task]

    assert asyncio.run(run()) == [True, False]
    assert not is_dense(model)


def test_an_evaluation_is_left_by_another_thread():
    model = ladder().train()
    block = model.evaluating()
    block.__enter__()
    leaving = threading.Thread(target=block.__exit__, args=(None, None, None))
    leaving.start()
    leaving.join()
    assert model.training
    assert in_time(lambda: model.eval(), lambda: plain(model, random_inputs(model.model, LENGTHS)))


def test_the_last_mode_that_was_asked_for_stays():
    model, inside = ladder().train(), threading.Event()
    block = model.evaluating()
    block.__enter__()
    asking = threading.Thread(target=lambda: (inside.set(), model.eval()))
    asking.start()
    inside.wait()
    while not model._turns._changes:
        pass
    block.__exit__(None, None, None)
    asking.join()
    assert not model.training


def test_an_interrupted_change_holds_up_nobody(monkeypatch):
    model = ladder()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model._turns._ended, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.train()
    assert in_time(lambda: plain(model, random_inputs(model.model, LENGTHS)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a call of POSIX")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_waits_for_no_thread_of_its_parent():
    model = ladder()
    with model._turns.call():
        child = os.fork()
        if not child:
            faulthandler.dump_traceback_later(10, exit=True)
            threads = [threading.Thread(target=model.train)]
            threads[0].start()
            threads[0].join()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_copies_have_modes_of_their_own():
    model = ladder()
    with model.dense():
        twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        assert not any(map(is_dense, twins))
    with model.evaluating():
        for twin in twins:
            twin.train()
    assert [twin.training for twin in (model, *twins)] == [False, True, True]
    batch = random_inputs(model.model, LENGTHS)
    assert np.allclose(plain(twins[0].eval(), batch).detach(), plain(model, batch).detach())
