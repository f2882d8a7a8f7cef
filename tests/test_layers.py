"""All layers as one native call, with all instructions that the machine has, against the loop in Python."""

from __future__ import annotations

import pickle
import threading

import pytest
import torch

from tests import tiny
from tests.cases import using
from thresher import PruningConfig, native, prune
from thresher.engines import Engine
from thresher.pruners import PRUNERS, Threshold

pytestmark = pytest.mark.usefixtures("instructions")
LENGTHS = [9, 30, 1, 2, 17]


def model_of(family: str, precision: str, pruning: PruningConfig, **options):
    model = prune(tiny.ARCHITECTURES[family](dtype=torch.float32, **options), pruning)
    if pruning.pruner == "threshold":
        paper = model.pruner.normalization == "paper"  # where fair shares are of a text of 128 tokens
        model.pruner.table.detach().copy_(torch.tensor([0.6, 0.9, 0.0, 1.1]) * (6 if paper else 1))
        if model.pruner.score != "attention":
            torch.nn.init.normal_(model.pruner.weight, std=0.2)
    return model.for_inference(precision, "native")


@pytest.fixture
def calls(monkeypatch):
    """Names of the native functions that are called."""
    found, call = [], native.call

    def noting(name, *args, **how):
        found.append(name)
        call(name, *args, **how)

    monkeypatch.setattr(native, "call", noting)
    return found


def both(model, batch, monkeypatch, **how):
    """Answers by one call, and by the loop."""
    ours = model(**batch, **how)
    with monkeypatch.context() as patch:
        patch.setattr(type(model.engine), "layers", Engine.layers)
        return ours, model(**batch, **how)


def same(ours, theirs):
    for name in ("logits", "last_hidden_state"):
        if name in theirs:
            assert torch.equal(ours[name], theirs[name])
    assert torch.equal(ours.trace.kept, theirs.trace.kept)
    assert torch.equal(ours.trace.flops, theirs.trace.flops)
    assert ours.trace.kept_share == theirs.trace.kept_share
    for found, expected in zip(ours.trace.depths, theirs.trace.depths, strict=True):
        assert torch.equal(found, expected)
    for row in range(ours.trace.start.batch):
        assert ours.trace.positions(row) == theirs.trace.positions(row)


RULES = {
    "attention": {"score": "attention"},
    "both": {"score": "both"},
    "hidden": {"score": "hidden"},
    "paper": {"normalization": "paper", "gate": "paper", "score": "attention"},
    "paper-both": {"normalization": "paper", "score": "both"},
}


@pytest.mark.parametrize(
    ("family", "rule"), [*((family, "both") for family in tiny.FAMILIES), *(("bert", rule) for rule in RULES)]
)
@torch.inference_mode()
def test_is_what_the_loop_gives(family, rule, precision, calls, monkeypatch):
    model = model_of(family, precision, PruningConfig("threshold", options=RULES[rule]))
    batch = tiny.random_inputs(model.model, LENGTHS)
    calls.clear()
    ours, theirs = both(model, batch, monkeypatch)
    assert "layers" in calls
    assert ours.trace.kept[-1].sum() < sum(LENGTHS)
    same(ours, theirs)
    same(*both(model, batch, monkeypatch, dense=True))


@pytest.mark.parametrize("family", ["distilbert", "albert", "mpnet", "gte", "jina_embeddings_v3", "eurobert"])
@torch.inference_mode()
def test_is_what_the_loop_gives_for_other_architectures(family, precision, calls, monkeypatch):
    model = model_of(family, precision, PruningConfig("threshold", options=RULES["attention"]))
    batch = tiny.random_inputs(model.model, LENGTHS)
    calls.clear()
    ours, theirs = both(model, batch, monkeypatch)
    assert "layers" in calls
    assert ours.trace.kept[-1].sum() < sum(LENGTHS)
    same(ours, theirs)


CARRIED = {
    "bert": {},
    "modernbert": {"suffix": 1},
    "mpnet": {"prefix": 3},
    "t5": {},
    "mt5": {"dropped": "mean"},
}


@pytest.mark.parametrize("family", CARRIED)
@pytest.mark.parametrize("head", ["tokens", "embedding"])
@torch.inference_mode()
def test_every_token_is_carried(family, head, precision, calls, monkeypatch):
    pruning = PruningConfig("threshold", options=RULES["attention"], **CARRIED[family])
    model = model_of(family, precision, pruning, head=head)
    batch = tiny.random_inputs(model.model, LENGTHS)
    calls.clear()
    ours, theirs = both(model, batch, monkeypatch)
    assert "layers" in calls
    assert ours.trace.kept[-1].sum() < sum(LENGTHS)
    same(ours, theirs)
    same(*both(model, batch, monkeypatch, dense=True))


@torch.inference_mode()
def test_tables_by_layer_are_left_to_the_loop(precision, calls):
    model = model_of("umt5", precision, PruningConfig("threshold"), head="tokens")
    calls.clear()
    model(**tiny.random_inputs(model.model, LENGTHS))
    assert "layers" not in calls
    assert calls.count("attend") == calls.count("stage") == 4


@pytest.mark.parametrize(
    ("family", "ends"),
    [
        ("bert", {"prefix": 3}),
        ("bert", {"suffix": 2}),
        ("bert", {"prefix_only_at_end": True, "suffix": 1}),
        ("mpnet", {"prefix_only_at_end": True}),
    ],
)
@torch.inference_mode()
def test_ends_stay(family, ends, precision, calls, monkeypatch):
    for pruner in ("threshold", "none"):
        model = model_of(family, precision, PruningConfig(pruner, **ends))
        batch = tiny.random_inputs(model.model, LENGTHS)
        calls.clear()
        same(*both(model, batch, monkeypatch))
        assert "layers" in calls


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_rule_is_what_the_pruner_says(pruner, calls, precision):
    """What has no rule is asked, and so is who overrides the method that the rule was made for."""
    model = model_of("bert", precision, PruningConfig(pruner))
    batch = tiny.random_inputs(model.model, LENGTHS)
    calls.clear()
    with torch.inference_mode():
        model(**batch)
    assert ("layers" in calls) == (model.pruner.rule(model.plan()) is not None)

    class Other(Threshold):
        def forward(self, layer, plan):
            return super().forward(layer, plan)

    class Same(Threshold):
        pass

    assert Other(2, 8).rule(model.plan()) is None
    assert Same(2, 8).rule(model.plan()) is not None


@torch.inference_mode()
def test_states_hooks_and_thresholds_at_the_edge(precision, calls, monkeypatch):
    model = model_of("bert", precision, PruningConfig("threshold", options={"score": "attention"}))
    batch = tiny.random_inputs(model.model, LENGTHS)
    expected = model(**batch).logits
    assert torch.equal(model(**batch, output_hidden_states=True).logits, expected)
    calls.clear()
    with model.pruner.register_forward_hook(lambda *_: None):
        assert torch.equal(model(**batch).logits, expected)
    assert "layers" not in calls
    for value in (float("inf"), float("nan"), -1.0, 1e-30):
        model.pruner.table.detach().fill_(value)
        same(*both(model, batch, monkeypatch))


@torch.inference_mode()
def test_a_text_has_equal_bits_in_any_batch(precision, request):
    """A thousand batches in the long form."""
    random = torch.Generator().manual_seed(0)
    model = model_of("bert", precision, PruningConfig("threshold"))

    def below(end: int) -> int:
        return int(torch.randint(end, (), generator=random))

    for seed in range(1000 if request.config.getoption("--long") else 10):
        lengths = [1 + below(40) for _ in range(1 + below(6))]
        batch = tiny.random_inputs(model.model, lengths, seed=seed)
        together, row = model(**batch), below(len(lengths))
        alone = model(**{name: values[row : row + 1, : lengths[row]] for name, values in batch.items()})
        assert torch.equal(alone.logits[0], together.logits[row])
        assert torch.equal(alone.trace.kept[:, 0], together.trace.kept[:, row])


@pytest.mark.parametrize("other", native.INSTRUCTIONS)
@torch.inference_mode()
def test_weights_for_other_instructions_are_not_misread(precision, other):
    """As where a model is pickled on one machine and opened on another."""
    model = model_of("bert", precision, PruningConfig("threshold"))
    batch = tiny.random_inputs(model.model, LENGTHS)
    expected = model(**batch, dense=True).logits
    copied = pickle.dumps(model)
    with using(other):
        for again in (model, pickle.loads(copied)):
            close = 1e-5 if precision == "fp32" else 0.1
            torch.testing.assert_close(again(**batch, dense=True).logits, expected, atol=close, rtol=0)


@torch.inference_mode()
def test_threads_have_memory_of_their_own(precision):
    model = model_of("bert", precision, PruningConfig("threshold"))
    batches = [tiny.random_inputs(model.model, [5 * size, 3, size]) for size in range(1, 9)]
    expected = [model(**batch).logits for batch in batches]
    wrong = []

    def work(place: int) -> None:
        with torch.inference_mode():
            for _ in range(20):
                if not torch.equal(model(**batches[place]).logits, expected[place]):
                    wrong.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
