"""Engines and precisions against the plain model in fp32."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from tests import tiny
from thresher import PrunedModel, PruningConfig, UserError, native, prune
from thresher.cli import options
from thresher.engines import AUTO, ENGINES, TorchEngine, chosen
from thresher.engines.layers.int8 import Int8Linear
from thresher.engines.layers.packed import PackedLinear
from thresher.pruners import PRUNERS

CLOSE = {"fp32": 1e-5, "bf16": 0.1, "int8": 0.3}  # logits, whose standard deviation is about 1
LENGTHS = [20, 7, 1, 30]


def pruned(family: str, thresholds: float, **options) -> PrunedModel:
    if family in tiny.FAMILIES:
        options["num_hidden_layers"] = 2  # OpenVINO compiles for long
    if family.startswith("modernbert"):
        options["layer_types"] = ["full_attention", "sliding_attention"]
    model = tiny.ARCHITECTURES[family](dtype=torch.float32, **options).eval()
    model = prune(model, PruningConfig("threshold"))
    model.pruner.thresholds.fill_(thresholds)
    return model


def ready(model: PrunedModel, engine: str, precision: str) -> PrunedModel:
    if engine == "openvino":
        pytest.importorskip("openvino")
        pytest.importorskip("nncf")
    model.for_inference(precision, engine)
    if (engine, precision) == ("openvino", "int8"):
        texts = [tiny.random_inputs(model.model, LENGTHS, seed) for seed in range(1, 20)]
        model.engine.calibrate(lambda: [model(**batch) for batch in texts])
    return model


@pytest.mark.parametrize("family", ["roberta", "electra", "modernbert", "modernbert-mean"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("engine", ENGINES)
@torch.inference_mode()
def test_is_close_and_independent_of_the_batch(family, engine, precision):
    if engine == "openvino" and family in ("electra", "modernbert-mean"):
        pytest.skip("nothing of these is this engine's own")
    close_and_independent(family, engine, precision)


OTHERS: dict[str, dict[str, str]] = {
    "distilbert": {},
    "albert": {},
    "mpnet": {"head": "embedding"},
    "deberta-v2": {},
    "deberta-v2-parts": {"head": "tokens"},
    "nomic_bert": {},
    "jina_embeddings_v3": {},
    "eurobert": {},
    "roberta-prelayernorm": {},
    "xlm-roberta-xl": {},
    "t5": {"head": "tokens"},
    "umt5": {"head": "embedding"},
    "gemma3_text": {},
}


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("engine", ["torch", "native"])
@torch.inference_mode()
def test_other_architectures_are_close_and_independent_of_the_batch(family, engine, precision):
    close_and_independent(family, engine, precision, **OTHERS[family])


def close_and_independent(family: str, engine: str, precision: str, **options) -> None:
    batch = tiny.random_inputs(pruned(family, 0.0, **options).model, LENGTHS)
    expected = answer(pruned(family, 0.0, **options)(**batch))
    model = ready(pruned(family, 0.0, **options), engine, precision)
    found = answer(model(**batch)).float()
    assert (found - expected).abs().max() < CLOSE[precision] * max(1, expected.std())
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.98
    model.pruner.thresholds.fill_(0.7)
    together = model(**batch)
    assert (together.trace.kept[-1] < torch.tensor(LENGTHS)).any()
    for row, length in enumerate(LENGTHS):
        alone = model(**{name: values[row : row + 1, :length] for name, values in batch.items()})
        assert alone.trace.kept[:, 0].tolist() == together.trace.kept[:, row].tolist()
        whole, part = answer(together)[row], answer(alone)[0]
        torch.testing.assert_close(part, whole if whole.dim() == 1 else whole[:length], atol=2e-6, rtol=1e-5)


def answer(output) -> torch.Tensor:
    """Logits, or the last hidden states of a model without a head."""
    return output.logits if "logits" in output else output.last_hidden_state


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_a_model_for_inference_is_neither_trained_nor_saved(precision, tmp_path):
    pruned("bert", 0.5).save_pretrained(tmp_path)
    model = PrunedModel.from_pretrained(tmp_path, precision=precision)
    assert model.pruner.thresholds.dtype == torch.float32
    with pytest.raises(UserError, match="load it again without a precision"):
        model.train()
    with pytest.raises(UserError, match="load it again without a precision"):
        model.save_pretrained(tmp_path)
    PrunedModel.from_pretrained(tmp_path).train()


def test_precisions_are_what_they_say(tmp_path):
    """Whatever the folder was saved in; and rotary frequencies stay float32."""
    model = pruned("modernbert", 0.5)
    model.model.to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    for precision in ("fp32", "bf16", "int8"):
        model = PrunedModel.from_pretrained(tmp_path, precision=precision)
        dtype = model.engine.dtype_of(precision)
        assert {p.dtype for p in model.model.parameters()} == {dtype}
        frequencies = [b for name, b in model.model.named_buffers() if "inv_freq" in name]
        assert frequencies
        assert all(b.dtype == torch.float32 for b in frequencies)


def test_is_made_ready_once_and_whole():
    model = pruned("bert", 0.5)
    with pytest.raises(UserError, match="fp8"):
        model.for_inference("fp8")
    assert all(p.requires_grad for p in model.model.parameters())
    model.train()
    model.for_inference("bf16")
    assert not model.training
    with pytest.raises(UserError, match="bf16 already"):
        model.for_inference("fp32")


def test_int8_keeps_the_head():
    model = pruned("bert", 0.0)
    model.for_inference("int8")
    modules = model.model.named_modules()
    in_int8 = [
        name for name, m in modules if isinstance(m, Int8Linear) or getattr(m, "precision", 0) == "int8"
    ]
    # Of two layers: query, key and value in one, output, two of the feed-forward.
    assert len(in_int8) == 4 * 2
    assert all(".encoder.layer." in name for name in in_int8)


@pytest.mark.parametrize(
    ("precision", "engine", "message"), [("fp8", "torch", "int8"), ("fp32", "tpu", "openvino")]
)
def test_unknown_names(precision, engine, message):
    with pytest.raises(UserError, match=message):
        pruned("bert", 0.0).for_inference(precision, engine)


def test_an_engine_refuses_early_what_it_does_not_run_in(monkeypatch):
    monkeypatch.setattr(TorchEngine, "precisions", ("fp32",))
    with pytest.raises(UserError, match="does not run in bf16; choose fp32"):
        pruned("bert", 0.0).for_inference("bf16", "torch")


def test_help_names_all_there_are():
    assert sorted(options.METHODS.split(", ")) == sorted(PRUNERS)
    named = options.ENGINES.split(", ")
    assert (named[0], sorted(named[1:])) == (AUTO, sorted(ENGINES))


@pytest.mark.parametrize("instructions", [None, *native.INSTRUCTIONS])
def test_auto_is_native_where_there_are_vectors(instructions, monkeypatch):
    monkeypatch.setattr(native, "instructions", instructions)
    x86 = ("amx", "avx512-bf16", "avx512-vnni", "avx512", "avx-vnni", "avx2")
    expected = "native" if instructions in x86 else "torch"
    assert chosen(AUTO) == expected
    assert chosen(AUTO, "cuda") == "torch"
    assert type(pruned("bert", 0.0).for_inference("fp32").engine).name == expected


def test_openvino_in_int8_wants_texts_first():
    pytest.importorskip("nncf")
    model = pruned("bert", 0.0).for_inference("int8", "openvino")
    with pytest.raises(UserError, match="calibrate"):
        model(**tiny.random_inputs(model.model, [4]))


class Adapter(torch.nn.Module):
    """Stands for a LoRA layer: reaches into the layer that it adapts."""

    def __init__(self, base_layer: torch.nn.Linear):
        super().__init__()
        self.base_layer = base_layer

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(values, 2 * self.base_layer.weight, self.base_layer.bias)


@torch.inference_mode()
def test_linear_layers_are_joined_and_packed_but_adapters_are_left():
    model = pruned("bert", 0.7)
    layers = model.model.bert.encoder.layer
    layers[1].attention.self.query = Adapter(layers[1].attention.self.query)
    batch = tiny.random_inputs(model.model, LENGTHS)
    expected = model(**batch)
    found = model.for_inference("fp32")(**batch)
    assert (found.trace.kept == expected.trace.kept).all()
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
    assert not hasattr(layers[0].attention.self, "query")
    plain = [name for name, m in layers.named_modules() if type(m) is torch.nn.Linear]
    assert plain == ["1.attention.self.query.base_layer"]
    adapted = pruned("bert", 0.7)
    adapted.model.bert.encoder.layer[0].output.dense = Adapter(layers[0].output.dense)
    before = [p.clone() for p in adapted.model.parameters()]
    with pytest.raises(UserError, match="merge it first"):
        adapted.for_inference("int8")
    for old, new in zip(before, adapted.model.parameters(), strict=True):
        assert old.dtype == new.dtype
        assert torch.equal(old, new)


def linear_and_packed(dtype=torch.float32) -> tuple[torch.nn.Linear, PackedLinear]:
    linear = torch.nn.Linear(48, 32, dtype=dtype).requires_grad_(False)
    return linear, PackedLinear(linear)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer,
        lambda layer: layer.to(torch.bfloat16),
        lambda layer: layer.double(),
        lambda layer: layer.half().float(),
        copy.deepcopy,
        lambda layer: pickle.loads(pickle.dumps(layer)),
    ],
)
def test_a_packed_layer_is_a_linear_layer_whatever_is_done_to_it(change):
    linear, packed = (change(layer) for layer in linear_and_packed())
    for rows in (0, 1, 5):
        values = torch.randn(rows, 48, dtype=linear.weight.dtype)
        torch.testing.assert_close(packed(values), linear(values))
    assert packed.weight.is_mkldnn == (linear.weight.dtype in (torch.float32, torch.bfloat16))
    assert packed.to("meta").weight.device.type == "meta"


def test_a_packed_layer_under_autocast_and_with_gradients():
    linear, packed = linear_and_packed()
    values = torch.randn(5, 48)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(
            packed(values.bfloat16()).float(), linear(values).float(), atol=0.05, rtol=0
        )
    values.requires_grad_()
    (expected,) = torch.autograd.grad(linear(values).sum(), values)
    (found,) = torch.autograd.grad(packed(values).sum(), values)
    torch.testing.assert_close(found, expected)


def test_bfloat16_is_not_packed_where_the_machine_cannot(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    linear, packed = linear_and_packed(torch.bfloat16)
    assert not packed.weight.is_mkldnn
    values = torch.randn(5, 48, dtype=torch.bfloat16)
    assert torch.equal(packed(values), linear(values))


@torch.inference_mode()
def test_two_of_one_model_and_layers_that_are_listened_to():
    first = pruned("bert", 0.7)
    heard = []
    attention = first.model.bert.encoder.layer[1].attention
    attention.self.key.register_forward_hook(lambda *_: heard.append("key"))
    attention.output.dense.register_forward_hook(lambda *_: heard.append("dense"))
    attention.self.value.bias = None
    second = prune(first.model, first.pruning)
    batch = tiny.random_inputs(first.model, LENGTHS)
    expected = first(**batch).logits
    heard.clear()
    torch.testing.assert_close(first.for_inference()(**batch).logits, expected, atol=1e-5, rtol=1e-5)
    assert heard == ["key", "dense"]
    with second.dense(), first.dense():
        assert torch.equal(second.for_inference()(**batch).logits, first(**batch).logits)


@pytest.mark.parametrize(("family", "own"), [("deberta-v2", None), ("deberta-v2-parts", "pos_query_proj")])
@torch.inference_mode()
def test_relative_positions_are_projected_once(family, own):
    """Unless the layer that does it is an adapter; and for every model that goes by the same modules."""
    first = pruned(family, 0.7)
    second = prune(first.model, first.pruning)
    attentions = [layer.attention.self for layer in first.model.deberta.encoder.layer]
    attentions[1].query_proj = Adapter(attentions[1].query_proj)
    if own:
        setattr(attentions[2], own, Adapter(getattr(attentions[2], own)))
    batch = tiny.random_inputs(first.model, LENGTHS)
    expected = first.eval()(**batch, dense=True).logits
    for model in (first.train(), second):  # whose dropout is not kept
        found = model.for_inference()(**batch, dense=True).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert [hasattr(attention, "places") for attention in attentions] == [True, False, not own, True]
    assert own is None or [hasattr(attention, own) for attention in attentions] == [False, True, True, False]


@torch.inference_mode()
def test_joined_layers_without_biases():
    model = pruned("bert", 0.0)
    for part in ("query", "key", "value"):
        getattr(model.model.bert.encoder.layer[0].attention.self, part).bias = None
    batch = tiny.random_inputs(model.model, LENGTHS)
    expected = model(**batch).logits
    torch.testing.assert_close(model.for_inference()(**batch).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@torch.inference_mode()
def test_another_activation_or_one_that_is_listened_to_stays(precision):
    model, heard = pruned("bert", 0.0), []
    first, second = (layer.intermediate for layer in model.model.bert.encoder.layer)
    first.intermediate_act_fn = torch.nn.ReLU()
    second.intermediate_act_fn.register_forward_hook(lambda *_: heard.append("act"))
    batch = tiny.random_inputs(model.model, LENGTHS)
    expected = model(**batch).logits
    found = model.for_inference(precision)(**batch).logits
    assert (found - expected).abs().max() < CLOSE[precision]
    assert heard == ["act", "act"]


def test_openvino_refuses_a_model_that_was_made_ready_already():
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    first = pruned("bert", 0.0)
    second = prune(first.model, first.pruning)
    first.for_inference("int8")
    with pytest.raises(UserError, match="load it again"):
        second.for_inference("fp32", "openvino")
