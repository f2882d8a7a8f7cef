"""The native engine where input or machine is not what it was tuned for: odd widths, few and many tokens,
more threads than cores, one core of many, and no memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.test_layers import both, same
from thresher import PrunedModel, PruningConfig, UserError, native, prune
from thresher.attention import attend
from thresher.engines.layers import NativeLinear
from thresher.packed import PackedBatch
from thresher.pruners import Rule

CLOSE = {"fp32": 2e-5, "bf16": 0.15, "int8": 0.3}  # logits, whose standard deviation is about 1
THRESHOLDS = (0.6, 0.9, 0.0, 1.1)
LENGTHS = [9, 30, 1, 2, 17]
# glibc's malloc sets address space aside for every thread, which a limit would not take back.
ONE_HEAP = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}


def ready(family: str, precision: str | None, dtype=torch.float32, **overrides) -> PrunedModel:
    """A pruned model that goes by attention alone; with a precision, in the native engine."""
    model = prune(
        tiny.ARCHITECTURES[family](dtype=dtype, **overrides), PruningConfig(options={"score": "attention"})
    )
    model.pruner.thresholds.copy_(torch.tensor(THRESHOLDS[: model.family.layers]))
    return model if precision is None else model.for_inference(precision, "native")


def texts(lengths: list[int], vocabulary: int = tiny.VOCAB) -> dict[str, torch.Tensor]:
    """A padded batch of random texts of any length."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.randint(vocabulary, mask.shape) * mask, "attention_mask": mask}


@contextmanager
def threads(count: int, team: object) -> Iterator[None]:
    """torch's number of threads, and whose team the native code takes."""
    before = torch.get_num_threads(), native.team
    torch.set_num_threads(count)
    native.team = team
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        native.team = before[1]


def check(model: PrunedModel, plain: PrunedModel, batch: dict[str, torch.Tensor], precision: str) -> None:
    """With nothing dropped as transformers answers, and in fp32 with drops as in float64."""
    expected = plain.model(**batch).logits
    assert (model(**batch, dense=True).logits - expected).abs().max() < CLOSE[precision]
    if precision == "fp32":
        ours, theirs = model(**batch), plain(**batch)
        assert torch.equal(ours.trace.kept, theirs.trace.kept)
        assert ours.trace.kept[-1].sum() < ours.trace.kept[0].sum()
        assert (ours.logits - theirs.logits).abs().max() < CLOSE[precision]


@pytest.mark.parametrize(
    ("family", "heads", "width", "ffn"),
    [
        ("bert", 16, 1, 5),
        ("electra", 3, 7, 33),
        ("camembert", 3, 24, 1),
        ("bert", 2, 80, 70),
        ("modernbert", 3, 24, 112),
        ("modernbert", 3, 2, 25),
        ("mpnet", 3, 7, 33),
        ("nomic_bert", 5, 6, 80),
    ],
)
@torch.inference_mode()
def test_odd_widths(family, heads, width, ffn, precision, monkeypatch):
    shape = {"hidden_size": heads * width, "num_attention_heads": heads, "intermediate_size": ffn}
    model, plain = ready(family, precision, **shape), ready(family, None, torch.float64, **shape)
    batch = tiny.random_inputs(model.model, LENGTHS)
    check(model, plain, batch, precision)
    same(*both(model, batch, monkeypatch))


@pytest.mark.parametrize("team", ["torch's", "its own"])
@torch.inference_mode()
def test_more_threads_than_cores_change_no_bit(team, precision):
    model, plain = ready("bert", precision), ready("bert", None, torch.float64)
    batch = tiny.random_inputs(model.model, [30, 1, 64, 7, 50] * 4)
    check(model, plain, batch, precision)
    expected = model(**batch)
    for count in (2, 8):
        with threads(count, native.team if team == "torch's" else None):
            found = model(**batch)
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.trace.kept, expected.trace.kept)


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@torch.inference_mode()
def test_one_token_and_none(family, precision):
    model, plain = ready(family, precision), ready(family, None, torch.float64)
    for lengths in ([1], [1, 1, 1]):
        batch = tiny.random_inputs(model.model, lengths)
        expected = plain.model(**batch).logits
        assert (model(**batch).logits - expected).abs().max() < CLOSE[precision]
    for shape in ((0, 4), (4, 0), (0, 0)):
        with pytest.raises(UserError, match="empty"):
            model(input_ids=torch.ones(shape, dtype=torch.int64))


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [0, 3, 0, 2, 0]])
@torch.inference_mode()
def test_layers_take_texts_of_no_token(lengths, family, precision):
    """No model asks for them: the call itself does no harm, and leaves the other texts as they are."""
    model = ready(family, precision)
    dtype = next(model.model.parameters()).dtype
    inner, family = 3 * model.family.dim, model.family
    rule = Rule(torch.tensor(THRESHOLDS), None, prefix=1)

    def passed(lengths: list[int]):
        starts = torch.tensor([0, *lengths]).cumsum(0).int()
        positions = torch.tensor([i for n in lengths for i in range(n)], dtype=torch.int64)
        made = torch.randn(8, family.dim + inner, generator=torch.Generator().manual_seed(0)).to(dtype)
        hidden, heads = made[: len(positions)].split([family.dim, inner], 1)
        heads = heads.unflatten(1, (3 * 4, -1)).split(4, 1)
        packed = PackedBatch(starts, positions, torch.tensor(lengths, dtype=torch.int64))
        return model.engine.layers(hidden, heads, packed, rule)

    found, expected = passed(lengths), passed([n for n in lengths if n])
    assert torch.equal(found.hidden, expected.hidden)
    assert torch.equal(found.packed.positions, expected.packed.positions)
    assert found.starts.shape == (4, len(lengths) + 1)
    assert found.hidden.isfinite().all()


@torch.inference_mode()
def test_a_batch_of_a_hundred_thousand_tokens(precision):
    shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}
    model, plain = ready("bert", precision, **shape), ready("bert", None, torch.float64, **shape)
    batch = texts(torch.randint(1, tiny.POSITIONS + 1, (3100,)).tolist())
    lengths = batch["attention_mask"].sum(1)
    assert lengths.sum() > 98_000
    found = model(**batch)
    for rows in (slice(0, 20), slice(1500, 1520), slice(-20, None)):
        some = {name: values[rows, : lengths[rows].max()] for name, values in batch.items()}
        check(model, plain, some, precision)
        alone = model(**some)
        assert torch.equal(found.logits[rows], alone.logits)
        assert torch.equal(found.trace.kept[:, rows], alone.trace.kept)


@torch.inference_mode()
def test_one_long_text(precision):
    shape = {"hidden_size": 16, "num_attention_heads": 1, "intermediate_size": 24, "num_hidden_layers": 2}
    shape["max_position_embeddings"] = 2001
    model, plain = ready("bert", precision, **shape), ready("bert", None, **shape)
    batch = texts([2001, 2])
    expected = plain.model(**batch).logits
    assert (model(**batch, dense=True).logits - expected).abs().max() < CLOSE[precision]
    assert torch.equal(model(**batch).logits[:1], model(**{k: v[:1] for k, v in batch.items()}).logits)


@torch.inference_mode()
def test_one_text_of_twelve_thousand_tokens_through_windows(precision, monkeypatch):
    """No token hangs on those that are out of reach of all layers: either end is as in a short text."""
    shape = {"layer_types": ["sliding_attention"] * 4, "max_position_embeddings": 12_000}
    model = ready("modernbert", precision, **shape)
    batch, ends = texts([12_000]), 40
    ours, theirs = both(model, batch, monkeypatch)
    same(ours, theirs)
    first = {name: values[:, :ends] for name, values in batch.items()}
    short = model(**first)
    assert torch.equal(ours.logits, short.logits)
    near = [position for position in short.trace.positions(0)[-1] if position < ends - 20]
    assert [position for position in ours.trace.positions(0)[-1] if position < ends - 20] == near
    check(model, ready("modernbert", None, torch.float64, **shape), first, precision)


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What `in_need` prints in a process of its own, which ends well."""
    if native.library is None or not hasattr(os, "sched_setaffinity"):
        pytest.skip("there is no native code, or the system does not bind processes to cores")
    command = [sys.executable, "-c", "from tests import test_odd_input; test_odd_input.in_need()"]
    how = {"cwd": Path(__file__).parents[1], "env": os.environ | ONE_HEAP, "timeout": 300}
    done = subprocess.run(command, capture_output=True, text=True, **how)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_a_process_that_is_limited_to_one_core(told):
    assert "on one core fp32" in told


def test_memory_that_is_refused_is_an_error_or_a_right_answer(told):
    """A call that needs memory raises; the next one, which has it, is right again."""
    for name in ("layers", "attend", "stage", "linear"):
        assert f"refused {name} fp32" in told


def in_need() -> None:
    torch.manual_seed(0)
    on_one_core()
    without_memory()


def having() -> list[str]:
    """Precisions in which whole stages run."""
    return [x for x in CLOSE if native.has_stages(x)]


@torch.inference_mode()
def on_one_core() -> None:
    """Bind this process to a core; print the precisions whose answers are right, with more threads too."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for precision in having():
        model, plain = ready("bert", precision), ready("bert", None, torch.float64)
        batch = tiny.random_inputs(model.model, [30, 1, 64, 7, 50] * 4)
        check(model, plain, batch, precision)
        for team in (native.team, None):
            with threads(4, team):
                check(model, plain, batch, precision)
        print("on one core", precision)


@contextmanager
def no_more_memory(spare: int) -> Iterator[None]:
    """Let native functions, and nobody else, have so many bytes more than the process has."""
    library, before = native.library, resource.getrlimit(resource.RLIMIT_AS)

    class Bounded:
        def __getattr__(self, name: str) -> object:
            function = getattr(library, name)

            def call(*given: object) -> int:
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + spare, before[1]))
                try:
                    return function(*given)
                finally:
                    resource.setrlimit(resource.RLIMIT_AS, before)

            return call

    native.library = Bounded()
    try:
        yield
    finally:
        native.library = library


@torch.inference_mode()
def without_memory() -> None:
    """Print which functions were refused memory, in which precision."""
    for precision in having():
        for name, ask in large_calls(precision).items():
            with ThreadPoolExecutor(1) as other:  # whose memory does not stay for this thread
                expected = other.submit(torch.inference_mode()(ask)).result()
            for team in (native.team, None):
                with threads(2, team):
                    torch.randn(1 << 20).exp()  # torch's team stands before memory is short
                    with no_more_memory(1 << 18):
                        found = answer(ask)
                if isinstance(found, str):
                    assert found.startswith(f"The native code found no memory to {name}:"), found
                    print("refused", name, precision)
                else:
                    assert torch.equal(found, expected)
            assert torch.equal(ask(), expected)


def answer(ask: Callable[[], torch.Tensor]) -> torch.Tensor | str:
    """What a call gives, or says."""
    try:
        return ask()
    except MemoryError as error:
        return str(error)


def large_calls(precision: str) -> dict[str, Callable[[], torch.Tensor]]:
    """A call that takes megabytes for itself, of every native function that a model asks for."""
    many = texts([tiny.POSITIONS] * 200)
    model = ready("bert", precision, num_hidden_layers=2)
    wide = ready("bert", precision, num_hidden_layers=1, intermediate_size=1 << 15)
    dtype = next(wide.model.parameters()).dtype
    packed, _ = PackedBatch.from_padded(torch.ones(1, 40), torch.ones(1, 40))
    rows = torch.randn(40, 32).to(dtype)
    linear = NativeLinear(torch.nn.Linear(1 << 15, 32).requires_grad_(False), precision)
    inputs = torch.randn(40, 1 << 15).to(dtype)
    long, qkv = PackedBatch.from_padded(torch.ones(1, 1000), torch.randn(1, 1000, 3, 1, 512))
    query = qkv.to(dtype).unbind(1)
    return {
        "layers": lambda: model(**many).logits,
        "stage": lambda: wide.engine.stage(0, rows, rows, packed)[0],
        "linear": lambda: linear(inputs),
        "attend": lambda: attend(*query, long, scale=0.05).importance(),
    }
