"""A stage as one native call, with all instructions that the machine has, against PyTorch's modules."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from tests import tiny
from thresher import PrunedModel, PruningConfig, native, prune
from thresher.engines import make_engine
from thresher.families import family_of
from thresher.packed import PackedBatch

CLOSE = {"fp32": 1e-5, "bf16": 0.1, "int8": 0.05}  # of hidden states, whose standard deviation is about 1
pytestmark = pytest.mark.usefixtures("instructions")


def model_of(family: str, **options) -> nn.Module:
    return tiny.ARCHITECTURES[family](dtype=torch.float32, **options)


def engines(model: nn.Module, precision: str):
    """The same model in PyTorch's engine, and in ours."""
    return [make_engine(name, family_of(copy.deepcopy(model)), precision) for name in ("torch", "native")]


def inputs(engine, tokens: int, survivors: int) -> dict:
    """Of a stage: a batch of two texts, of which some tokens stay."""
    shape = engine.family.shape(0)
    dtype = next(engine.family.model.parameters()).dtype
    hidden = torch.randn(tokens, shape.dim)
    context = torch.randn(survivors, shape.heads * shape.head_dim)
    places = torch.randperm(tokens)[:survivors].sort().values
    starts = torch.tensor([0, survivors // 2, survivors], dtype=torch.int32)
    packed = PackedBatch(starts, torch.randint(tiny.POSITIONS, (survivors,)), torch.tensor([tokens, tokens]))
    return {
        "hidden": hidden.to(dtype),
        "context": context.to(dtype),
        "packed": packed,
        "survivors": None if tokens == survivors else places,
    }


SHAPES = {
    "bert": {},
    "roberta": {"hidden_size": 36, "intermediate_size": 70},
    "electra": {"hidden_act": "relu"},
    "camembert": {"hidden_act": "gelu_new"},
    "modernbert": {"hidden_size": 48, "intermediate_size": 80},
    "modernbert-mean": {"hidden_activation": "silu"},
    "distilbert": {},
    "albert": {"hidden_size": 36},
    "mpnet": {"hidden_size": 36, "intermediate_size": 70},
    "deberta-v2": {},
    "nomic_bert": {"hidden_size": 48},
    "jina_embeddings_v3": {"intermediate_size": 70},
    "eurobert": {"intermediate_size": 80},
    "t5": {"head": "tokens", "d_ff": 70},
    "umt5": {"head": "tokens", "feed_forward_proj": "gated-gelu", "d_kv": 12},
}
SIZES = (1, 1), (7, 7), (300, 131), (20, 0)  # tokens, and survivors


@pytest.mark.parametrize(
    ("family", "tokens", "survivors"),
    [(name, *size) for name in SHAPES for size in (SIZES if name in tiny.FAMILIES else SIZES[2:3])],
)
@torch.inference_mode()
def test_is_what_the_modules_give(family, tokens, survivors, precision):
    theirs, ours = engines(model_of(family, **SHAPES[family]), precision)
    given = inputs(ours, tokens, survivors)
    dtype = next(theirs.family.model.parameters()).dtype
    like = {name: given[name].to(dtype) for name in ("hidden", "context")}
    halved = torch.bfloat16 in (dtype, given["hidden"].dtype)  # theirs is, with AMX, whatever ours is
    close = CLOSE[precision] + (CLOSE["bf16"] if halved and precision != "bf16" else 0.0)
    for index in range(ours.family.layers):
        hidden, heads = ours.stage(index, **given)
        expected, expected_heads = theirs.stage(index, **given | like)
        assert ours._stages[index] is not None
        assert (heads is None) == (index + 1 == ours.family.layers) == (expected_heads is None)
        for found, wanted in zip((hidden, *(heads or ())), (expected, *(expected_heads or ())), strict=True):
            assert found.dtype == given["hidden"].dtype
            difference = (found.float() - wanted[:survivors].float()).abs()
            assert difference.numel() == 0 or difference.max() < close


@torch.inference_mode()
def test_a_row_depends_on_neither_the_others_nor_the_threads(precision, monkeypatch):
    _, engine = engines(model_of("bert", hidden_size=96, intermediate_size=200), precision)
    given = inputs(engine, 700, 700)
    alone = []
    for i in range(0, 700, 7):
        packed = given["packed"].at(torch.tensor([i]))
        one = {"hidden": given["hidden"][i : i + 1], "context": given["context"][i : i + 1], "packed": packed}
        alone.append(engine.stage(0, **one))
    for team in (native.team, None):
        monkeypatch.setattr(native, "team", team)
        for threads in (1, 2, 5):
            monkeypatch.setattr(native, "threads", lambda *_, count=threads: count)
            hidden, heads = engine.stage(0, **given)
            assert torch.equal(hidden[::7], torch.cat([row for row, _ in alone]))
            for part, found in enumerate(heads):
                assert torch.equal(found[::7], torch.cat([row[part] for _, row in alone]))


def pruned(precision: str | None, family: str = "bert") -> PrunedModel:
    model = prune(model_of(family), PruningConfig("threshold"))
    model.pruner.thresholds.fill_(0.5)
    return model if precision is None else model.for_inference(precision, "native")


@torch.inference_mode()
def test_hooks_are_heard_and_copies_run(precision):
    model = pruned(precision)
    batch = tiny.random_inputs(model.model, [9, 30])
    expected = model(**batch).logits
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(same(**batch).logits, expected)
    heard = []
    module = model.model.bert.encoder.layer[1].output.dense
    with module.register_forward_hook(lambda *_: heard.append(1)):
        found = model(**batch).logits
    assert heard
    assert (found - expected).abs().max() < CLOSE[precision]
    assert torch.equal(model(**batch).logits, expected)


@pytest.mark.parametrize(
    ("family", "name"),
    [("bert", "embeddings.word_embeddings"), ("mpnet", "encoder.relative_attention_bias")],
)
def test_gradients_go_through_the_modules(family, name, precision):
    model = pruned(precision, family)
    learned = model.family.encoder.get_submodule(name).weight
    batch = tiny.random_inputs(model.model, [9, 30])
    model.model.requires_grad_(False)
    learned.requires_grad_()
    model(**batch).logits.float().sum().backward()
    assert learned.grad is not None
    assert learned.grad.abs().max() > 0


@torch.inference_mode()
def test_without_native_code_the_modules_run(precision, monkeypatch):
    model = pruned(precision)
    batch = tiny.random_inputs(model.model, [9, 30])
    expected = model(**batch).logits.float()
    monkeypatch.setattr(native, "library", None)
    assert (model(**batch).logits.float() - expected).abs().max() < 2 * CLOSE[precision]
