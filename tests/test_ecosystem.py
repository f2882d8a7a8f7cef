"""PrunedModel treated like any transformers model: it works, or one sentence says why not, and what to do."""

import copy
import io
import json
import pickle
import shutil
import time
import warnings

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, BertConfig, BertForMaskedLM, Trainer, TrainingArguments

from thresher import PrunedModel, UserError, prune, store
from thresher.files import hub
from thresher.folders import locate
from thresher.plan import Soft
from thresher.store import FILE, load_config
from thresher.training.base import load_base, load_dense

from .cases import LENGTHS, build
from .tiny import FAMILIES, random_inputs
from .toy import save_model, tokenizer

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def small(**options):
    return build("bert", dtype=torch.float32, **options)


def batch(model):
    return random_inputs(model.model, LENGTHS)


@pytest.fixture
def saved(tmp_path):
    """A pruned model, its batch, and the folder that it is saved in."""
    pruned = small()
    pruned.save_pretrained(tmp_path / "pruned")
    return pruned, batch(pruned), tmp_path / "pruned"


# Trainer ---------------------------------------------------------------------------------------------------


def trainer(model, folder, **options):
    inputs = batch(model)
    rows = [{name: values[i] for name, values in inputs.items()} | {"labels": i % 3} for i in range(6)] * 2
    arguments = {"report_to": "none", "disable_tqdm": True, "num_train_epochs": 1, "use_cpu": True, "seed": 3}
    arguments |= {"per_device_train_batch_size": 4, "logging_steps": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # names that newer versions of transformers change
        settings = TrainingArguments(output_dir=str(folder), **(arguments | options))
    return Trainer(model=model, args=settings, train_dataset=rows, eval_dataset=rows)


def test_trainer_with_gradient_checkpointing(tmp_path):
    trained = []
    for options in ({"gradient_checkpointing": True}, {}):
        model = small()
        trainer(model, tmp_path, **options).train()
        assert model.is_gradient_checkpointing == bool(options)
        trained.append(model)
    for one, other in zip(*(model.parameters() for model in trained), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{}, {"every_n_layers": 2}, {"offload": True}])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_gradients_are_equal_with_checkpointing(family, options):
    pruned = build(family).train()
    pruned.soft = Soft(0.1)
    inputs, found, calls = batch(pruned), [], []
    stage = pruned.engine.stage
    pruned.engine.stage = lambda layer, *rest: calls.append(layer) or stage(layer, *rest)
    for enabled in (False, True):
        if enabled:
            pruned.gradient_checkpointing_enable(None, **options)
        torch.manual_seed(0)
        pruned.zero_grad()
        pruned(**inputs, labels=LABELS).loss.backward()
        found.append(
            [parameter.grad.clone() for parameter in pruned.parameters() if parameter.grad is not None]
        )
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    twice = [layer for layer in range(4) if calls.count(layer) == 3]
    assert twice == list(range(0, 4, options.get("every_n_layers", 1)))
    calls.clear()
    pruned.gradient_checkpointing_disable()
    pruned(**inputs, labels=LABELS).loss.backward()
    assert calls == [0, 1, 2, 3]
    with pytest.raises(UserError, match="use_reentrant"):
        pruned.gradient_checkpointing_enable({"use_reentrant": True})


def test_what_trainer_saves_is_opened(tmp_path):
    pruned = small(thresholds=(0.6001, 0.7001, 0.8001, 0.7003), prefix=2)
    pruned.metadata = {"base": "somewhere"}
    run = trainer(pruned, tmp_path / "run", save_steps=1)
    run.train()
    run.save_model(tmp_path / "saved")
    assert not (tmp_path / "saved" / "config.json").exists()
    with torch.no_grad():
        expected = pruned.eval()(**batch(pruned))
        for folder in (tmp_path / "saved", tmp_path / "run" / "checkpoint-3"):
            loaded = PrunedModel.from_pretrained(folder)
            found = loaded(**batch(pruned))
            assert torch.equal(found.logits, expected.logits)
            assert torch.equal(found.trace.kept, expected.trace.kept)
            assert (loaded.pruning.prefix, loaded.metadata) == (2, {"base": "somewhere"})
        loaded.save_pretrained(tmp_path / "again")
        assert torch.equal(
            PrunedModel.from_pretrained(tmp_path / "again")(**batch(pruned)).logits, found.logits
        )
        # Beside a config that lay there before, too.
        shutil.copy(tmp_path / "again" / "config.json", tmp_path / "saved")
        assert torch.equal(
            PrunedModel.from_pretrained(tmp_path / "saved")(**batch(pruned)).logits, found.logits
        )
    with pytest.raises(UserError, match=r"what Trainer saved.*save_pretrained"):
        load_dense(str(tmp_path / "saved"))
    with pytest.raises(UserError, match=r"output folder of a training run.*checkpoint-3"):
        PrunedModel.from_pretrained(tmp_path / "run")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert-mean"])
def test_a_state_dict_alone_holds_the_model(family, dtype, tmp_path):
    pruned = build(family, dtype=dtype, num_labels=4, id2label={i: f"class {i}" for i in range(4)})
    save_file(pruned.state_dict(), tmp_path / "model.safetensors")
    loaded = PrunedModel.from_pretrained(tmp_path)
    assert loaded.config.id2label == pruned.config.id2label
    assert loaded.dtype == dtype
    with torch.no_grad():
        assert torch.equal(loaded(**batch(pruned)).logits, pruned(**batch(pruned)).logits)


def test_what_trainer_of_an_older_version_saved_is_explained_and_recovered(tmp_path):
    pruned = small()
    state = pruned.state_dict()
    settings = state.pop("_extra_state")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"without its settings.*load_state_dict.*save_pretrained"):
        PrunedModel.from_pretrained(tmp_path)
    again = prune(FAMILIES["bert"](seed=1, dtype=torch.float32), pruned.pruning)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))  # as the sentence says, and strictly
    assert torch.equal(again(**batch(pruned)).logits, pruned(**batch(pruned)).logits)
    assert torch.equal(settings, pruned.state_dict()["_extra_state"])
    assert "_extra_state" not in state  # that of the caller is left as it was


def test_a_model_made_ready_says_in_its_checkpoint_that_it_cannot_be_trained(saved, tmp_path):
    _, _, folder = saved
    ready = PrunedModel.from_pretrained(folder, precision="bf16")
    trainer(ready, tmp_path / "run").save_model(tmp_path / "bad")
    with pytest.raises(UserError, match="cannot be opened: This model was made ready"):
        PrunedModel.from_pretrained(tmp_path / "bad")


def test_trainer_resumes_predicts_accumulates_and_takes_the_best(tmp_path):
    whole, halves = small(), small()
    first = trainer(whole, tmp_path / "one", save_steps=1)
    first.train()
    trainer(halves, tmp_path / "two").train(resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-2"))
    for one, other in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(one, other)
    assert first.predict(first.eval_dataset).predictions.shape == (12, 3)
    assert first.evaluate()["eval_loss"] > 0
    best = {"save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    run = trainer(small(), tmp_path / "three", **best)
    run.train()
    assert run.state.best_model_checkpoint
    # Two halves of a batch weigh as the whole: the loss is neither doubled nor halved.
    losses = []
    for options in ({"per_device_train_batch_size": 6}, {"per_device_train_batch_size": 3}):
        model = small(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        run = trainer(
            model, tmp_path / "four", gradient_accumulation_steps=6 // next(iter(options.values())), **options
        )
        run.train()
        losses.append(run.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# Distributed training --------------------------------------------------------------------------------------


@pytest.fixture
def one_process():
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("options", [{}, {"find_unused_parameters": True}, {"gradient_as_bucket_view": True}])
@pytest.mark.parametrize("to_none", [True, False])
def test_distributed_training_holds_thresholds_in_the_hard_stage(options, to_none, one_process):
    pruned = small().train()
    wrapped = DistributedDataParallel(pruned, **options)
    optimiser = torch.optim.AdamW(pruned.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(5):
        pruned.soft = Soft(0.1) if step < 2 else None
        before = {name: tensor.clone() for name, tensor in pruned.pruner.state_dict().items()}
        weight = pruned.model.classifier.weight.detach().clone()
        wrapped(**batch(pruned), labels=LABELS).loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=to_none)
        assert not torch.equal(pruned.model.classifier.weight, weight)
        for name, tensor in pruned.pruner.state_dict().items():
            assert torch.equal(tensor, before[name]) == (step >= 2), (step, name)


def test_gradients_of_the_soft_stage_are_the_same_in_distributed_training(one_process):
    found = []
    for wrap in (lambda model: model, DistributedDataParallel):
        pruned = small().train()
        pruned.soft = Soft(0.1)
        torch.manual_seed(0)
        wrap(pruned)(**batch(pruned), labels=LABELS).loss.backward()
        found.append([parameter.grad for parameter in pruned.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_zeros_that_are_left_of_the_soft_stage_move_no_threshold():
    """By momentum, without any distributed training."""
    pruned = small().train()
    optimiser = torch.optim.AdamW(pruned.parameters(), lr=1e-2)
    for step in range(4):
        pruned.soft = Soft(0.1) if step < 2 else None
        before = pruned.pruner.table.detach().clone()
        pruned(**batch(pruned), labels=LABELS).loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)
        assert torch.equal(pruned.pruner.table, before) == (step >= 2)


def test_data_parallel_is_refused():
    with pytest.raises(UserError, match="DistributedDataParallel"):
        small()._replicate_for_data_parallel()


# Compiling, tracing, copying -------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", [None, "fp32", "bf16", "int8"])
@pytest.mark.usefixtures("no_grad")
def test_torch_compile(precision, saved):
    _, inputs, folder = saved
    model = PrunedModel.from_pretrained(folder, precision=precision)
    expected = model(**inputs)
    for compiled in (torch.compile(model), torch.compile(model, fullgraph=True)):
        found = compiled(**inputs)
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.trace.kept, expected.trace.kept)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("record", "name"),
    [
        (lambda model, ids: torch.jit.trace(model, (ids,)), "torch.jit.trace"),
        (lambda model, ids: torch.jit.script(model), "torch.jit.script"),
        (lambda model, ids: torch.export.export(model, (ids,)), "torch.export"),
        (lambda model, ids: torch.onnx.export(model, (ids,), io.BytesIO(), dynamo=False), "torch.jit.trace"),
    ],
)
def test_recordings_are_refused(record, name):
    pruned = small()
    with pytest.raises(UserError, match=f"{name}.*how many tokens stay depends on the data.*openvino"):
        record(pruned, batch(pruned)["input_ids"])


@pytest.mark.parametrize("precision", [None, "fp32", "bf16", "int8"])
@pytest.mark.usefixtures("no_grad")
def test_copies(precision, saved):
    _, inputs, folder = saved
    model = PrunedModel.from_pretrained(folder, precision=precision)
    expected = model(**inputs).logits
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    read = torch.load(stored, weights_only=False)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), read):
        assert twin.family.model is twin.model  # not that of the original
        assert torch.equal(twin(**inputs).logits, expected)


def test_an_engine_that_cannot_be_copied_says_so(saved):
    pytest.importorskip("openvino")
    model = PrunedModel.from_pretrained(saved[2], engine="openvino")
    for twin in (copy.deepcopy, pickle.dumps):
        with pytest.raises(UserError, match="load the folder again"):
            twin(model)


def test_the_meta_device():
    meta = small().to("meta")
    assert meta.pruner.table.is_meta
    with pytest.raises(UserError, match="holds no numbers"):
        meta(input_ids=torch.ones(1, 3, dtype=torch.long, device="meta"))
    assert meta.to_empty(device="cpu").pruner.table.device.type == "cpu"


# Calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"position_ids": torch.zeros(1, 2)}, "no position_ids: positions are"),
        ({"inputs_embeds": torch.zeros(1, 2, 32)}, "no inputs_embeds: .*pass input_ids"),
        ({"output_attentions": True}, "no output_attentions: .*output.trace"),
        ({"head_mask": torch.ones(4)}, "no head_mask"),
        ({"offset_mapping": torch.ones(1, 2)}, "no offset_mapping: it takes input_ids"),
        ({"input_ids": [[1, 2]]}, "a list in place of a tensor"),
        ({"input_ids": {"input_ids": torch.ones(1, 2)}}, r"a dict in place .*model\(\*\*batch\)"),
        ({"input_ids": torch.ones(1, 2)}, "whole numbers"),
        ({"attention_mask": [[1, 1]]}, "a list in place of a tensor of attention_mask"),
        ({"input_ids": torch.full((1, 2), 10**6)}, "none that the model knows: use the tokenizer"),
        ({"input_ids": torch.full((1, 2), -1)}, "none that the model knows"),
        ({"token_type_ids": torch.full((1, 2), 9)}, "none that the model knows"),
        ({"budget": "0.5"}, "A budget is a number, as 0.5, not '0.5'"),
        ({"input_ids": torch.ones(0, 2, dtype=torch.long)}, "batch is empty"),
    ],
)
def test_inputs_that_there_are_not(inputs, message):
    with pytest.raises(UserError, match=message):
        small()(**({"input_ids": torch.ones(1, 2, dtype=torch.long)} | inputs))


@pytest.mark.usefixtures("no_grad")
def test_inputs_that_say_nothing_are_taken():
    pruned = small()
    nothing = {"position_ids": None, "output_attentions": False, "use_cache": False, "head_mask": None}
    assert torch.equal(pruned(**batch(pruned), **nothing).logits, pruned(**batch(pruned)).logits)


@pytest.mark.usefixtures("no_grad")
def test_embeddings_are_those_of_the_model_inside():
    pruned = small()
    inputs = batch(pruned)
    expected = pruned(**inputs).logits
    assert pruned.get_input_embeddings() is pruned.model.bert.embeddings.word_embeddings
    pruned.resize_token_embeddings(150)
    assert pruned.config.vocab_size == pruned.get_input_embeddings().num_embeddings == 150
    assert torch.equal(pruned(**inputs).logits, expected)
    assert pruned.num_parameters() == sum(parameter.numel() for parameter in pruned.model.parameters())


def test_options_of_save_pretrained(saved, tmp_path):
    pruned, _, _ = saved
    pruned.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other").exists()
    state = {
        name: tensor * 2 if tensor.is_floating_point() else tensor
        for name, tensor in pruned.state_dict().items()
    }
    pruned.save_pretrained(tmp_path / "given", state_dict=state, safe_serialization=True)
    loaded = PrunedModel.from_pretrained(tmp_path / "given")
    assert torch.equal(loaded.pruner.table, pruned.pruner.table * 2)
    assert torch.equal(loaded.model.classifier.weight, pruned.model.classifier.weight * 2)
    with pytest.raises(UserError, match="safetensors alone"):
        pruned.save_pretrained(tmp_path / "other", safe_serialization=False)
    with pytest.raises(UserError, match=r"takes no 'push_to_hub'.*model\.push_to_hub"):
        pruned.save_pretrained(tmp_path / "other", push_to_hub=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        pruned.save_pretrained(tmp_path / "file")
    with pytest.raises(UserError, match="takes no 'device_map'"):
        PrunedModel.from_pretrained(tmp_path / "given", device_map="auto")


def test_push_to_hub_uploads_what_save_pretrained_writes(saved, monkeypatch):
    pruned, _, folder = saved
    seen = []
    monkeypatch.setattr(transformers.utils.hub, "hf_api", lambda: Hub(), raising=False)
    monkeypatch.setattr(transformers.utils.hub, "create_and_tag_model_card", lambda *args, **kwargs: Card())
    monkeypatch.setattr(
        PrunedModel, "_upload_modified_files", lambda self, path, *args, **kwargs: seen.extend(listed(path))
    )
    pruned.push_to_hub("somebody/pruned")
    assert sorted(seen) == sorted(listed(folder))


class Card:
    def save(self, path):
        """Nothing."""


class Hub:
    def create_repo(self, name, **options):
        return type("Repo", (), {"repo_id": name})


def listed(folder):
    return [entry.name for entry in store.Path(folder).iterdir()]


# Where models lie ------------------------------------------------------------------------------------------


@pytest.fixture
def unplugged(monkeypatch):
    """A hub that nobody can reach; counts how often it was asked."""
    asked = []

    class Session:
        def head(self, url, **options):
            asked.append(url)
            raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    monkeypatch.setattr(locate, "is_offline_mode", lambda: False)
    monkeypatch.setattr(hub, "_answers", {})
    return asked


def test_a_mistyped_folder_is_answered_at_once(tmp_path, monkeypatch, unplugged, caplog):
    FAMILIES["bert"]().save_pretrained(tmp_path / "pruned")
    FAMILIES["bert"]().save_pretrained(tmp_path / "models" / "pruned")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    start = time.perf_counter()
    for path, near in [
        ("./pruend", "./pruned"),
        (tmp_path / "pruend", f"{tmp_path}/pruned"),
        ("~/pruend", f"{tmp_path}/pruned"),
        ("two--dashes", None),
        ("a/b/c", None),
    ]:
        with pytest.raises(UserError, match=f"no folder .*Did you mean '{near}'" if near else "no folder"):
            load_config(path)
    assert not unplugged
    with pytest.raises(UserError, match=r"could not be had \(Name or service.*Did you mean './pruned'"):
        load_config("pruend")
    with pytest.raises(UserError, match=r"could not be had .*Did you mean 'models/pruned'"):
        load_config("models/pruend")  # may be a hub name, whatever lies beside
    with pytest.raises(UserError, match="could not be had"):
        load_config("pruend")  # not asked again at once
    assert len(unplugged) == 2
    assert time.perf_counter() - start < 2
    assert not caplog.text
    assert load_config("~/pruned").model_type == "bert"
    with pytest.raises(UserError, match="is a file; give the folder"):
        load_config("pruned/config.json")


@pytest.mark.usefixtures("no_grad")
def test_the_hubs_cache_answers_where_the_hub_does_not(saved, tmp_path, unplugged):
    pruned, inputs, folder = saved
    cache = tmp_path / "cache" / "models--somebody--pruned"
    shutil.copytree(folder, cache / "snapshots" / ("a" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    start = time.perf_counter()
    loaded = PrunedModel.from_pretrained("somebody/pruned", cache_dir=tmp_path / "cache")
    assert torch.equal(loaded(**inputs).logits, pruned(**inputs).logits)
    assert len(unplugged) == 1
    PrunedModel.from_pretrained("somebody/pruned", cache_dir=tmp_path / "cache", local_files_only=True)
    assert len(unplugged) == 1
    assert time.perf_counter() - start < 5
    (cache / "snapshots" / ("a" * 40) / FILE).unlink()
    with pytest.raises(UserError, match=f"'{FILE}' is missing"):
        PrunedModel.from_pretrained("somebody/pruned", cache_dir=tmp_path / "cache")


# Folders that hold no model that can be pruned -------------------------------------------------------------


@pytest.fixture
def base(tmp_path):
    return save_model(tmp_path / "base")


def refused(folder, message, *opens):
    for open_it in opens or (load_base, PrunedModel.from_pretrained, load_config):
        with pytest.raises(UserError, match=message):
            open_it(str(folder))


@pytest.mark.parametrize("whole", [True, False])
def test_adapters_are_refused_with_or_without_peft(whole, base, tmp_path):
    """Beside a config, without peft, transformers leaves out the adapter and says nothing."""
    folder = base if whole else tmp_path / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    refused(folder, r"merge the adapter first.*merge_and_unload\(\)")


def test_an_adapter_inside_a_pruned_model_is_not_saved(tmp_path):
    pruned = small()
    attention = pruned.model.bert.encoder.layer[0].attention.self
    attention.query.base_layer = nn.Identity()  # as peft wraps a layer
    with pytest.raises(UserError, match="merge it first"):
        pruned.save_pretrained(tmp_path)


def put(name, content=""):
    def change(folder):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return change


def move_down(name):
    def change(folder):
        shutil.copytree(folder, folder / name, ignore=lambda *_: [name])
        (folder / "config.json").unlink()

    return change


def only(*changes):
    def change(folder):
        for entry in list(folder.iterdir()):
            entry.unlink()
        for put_it in changes:
            put_it(folder)

    return change


def edited(**changes):
    def change(folder):
        file = folder / "config.json"
        content = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (only(), "holds no config.json: it is empty"),
        (only(put("model.Q4.gguf")), r"Q4.gguf is for llama.cpp \(GGUF\); PyTorch's weights are needed"),
        (only(put("onnx/model.onnx")), "model.onnx is for ONNX Runtime"),
        (only(lambda folder: tokenizer().save_pretrained(folder)), "a tokenizer alone"),
        (move_down("0_Transformer"), "lies deeper: give '.*0_Transformer'"),
        (move_down("checkpoint-20"), "output folder of a training run. Give .*checkpoint-20"),
        (put("config.json"), "config.json is damaged: it is no JSON"),
        (put("config.json", "{"), "config.json is damaged: it is no JSON"),
        (put("config.json", "[1]"), "has no 'model_type'"),
        (edited(model_type=None), "has no 'model_type'"),
        (edited(num_hidden_layers=0), "num_hidden_layers 0; a model needs 1 or more"),
        (edited(num_hidden_layers="x"), "num_hidden_layers.*expected int, got str"),
        (edited(quantization_config={"quant_method": "gptq"}), "quantised by gptq.*int8"),
    ],
)
def test_folders_of_which_no_config_can_be_read(change, message, base):
    change(base)
    refused(base, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: shutil.move(folder / "model.safetensors", folder / "model.onnx"), "for ONNX Runtime"),
        (
            lambda folder: shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin"),
            "copy it again",
        ),
        (put("model.safetensors", "version https://git-lfs.github.com/spec/v1"), "copy it again"),
        (edited(num_hidden_layers=6), "'bert.encoder.layer.4.* is missing, which its config counts"),
        (edited(hidden_size=64), "other shapes than the config says"),
        (edited(num_attention_heads=3), "not a multiple of the number of attention heads"),
        (edited(is_decoder=True), "configured as a decoder"),
        (edited(model_type="gpt2"), "'gpt2' is not supported"),
        (edited(model_type="fnet"), "'fnet' is not supported"),
    ],
)
def test_folders_of_which_no_base_model_can_be_read(change, message, base):
    change(base)
    refused(base, message, load_base)


def test_weights_of_the_older_format_are_read(base):
    expected, _ = load_dense(str(base))
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    model, _ = load_base(str(base))
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_encoder_without_a_head_and_a_config_without_an_architecture(saved, tmp_path):
    BertForMaskedLM(
        BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path / "encoder")
    refused(tmp_path / "encoder", "has no trained head", load_base)
    edited(architectures=None)(saved[2])
    refused(saved[2], "names no class of transformers", PrunedModel.from_pretrained)


def test_a_pruned_folder_is_a_base_again(saved):
    model, _ = load_dense(str(saved[2]))
    assert not hasattr(model.config, "token_pruning")
    assert hasattr(AutoConfig.from_pretrained(saved[2]), "token_pruning")
