"""Save and load: bit for bit, in every precision, open to stock transformers, and versioned."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, pipeline

from thresher import PrunedModel, PruningConfig, UserError
from thresher.config import VERSION
from thresher.pruners import PRUNERS, all_options
from thresher.store import FILE

from .cases import LENGTHS, PAIRS, THRESHOLDS, build, every_family
from .tiny import FAMILIES, random_inputs
from .toy import tokenizer

pytestmark = pytest.mark.usefixtures("no_grad")
# Not exact in bfloat16, which would round them to 0.6016, 0.7031, ...
FINE = (0.6001, 0.7001, 0.8001, 0.7003)


def edit_config(folder, change):
    file = folder / "config.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("family", "pruner", "dtype"),
    [(*pair, torch.float32) for pair in PAIRS]
    + [(family, "threshold", torch.bfloat16) for family in FAMILIES]
    + [("bert", "topk", torch.bfloat16), ("bert", "threshold", torch.float64)],
)
def test_save_and_load_is_bit_for_bit(family, pruner, dtype, tmp_path):
    pruned = build(family, pruner, dtype=dtype, prefix=2, thresholds=FINE)
    pruned.metadata = {"base": "somewhere", "quality": 0.9}
    inputs = random_inputs(pruned.model, LENGTHS)
    before = pruned(**inputs)
    pruned.save_pretrained(tmp_path / "new" / "folder")
    loaded = PrunedModel.from_pretrained(tmp_path / "new" / "folder")
    after = loaded(**inputs)
    assert not loaded.training
    assert loaded.dtype == dtype
    # BLAS rounds by how its operands are aligned: the next line alone would pass or fail by chance.
    assert not [name for name, weight in loaded.named_parameters() if weight.data_ptr() % 64]
    assert torch.equal(after.logits, before.logits)
    assert torch.equal(after.trace.kept, before.trace.kept)
    if pruner != "none":
        assert (after.trace.kept[-1] < torch.tensor(LENGTHS)).any()
    # Defaults are written down: they may change, and what was saved must not.
    told = replace(pruned.pruning, options=all_options(pruned.pruning))
    assert (loaded.pruning, loaded.metadata) == (told, pruned.metadata)
    assert loaded.state_dict().keys() == pruned.state_dict().keys()
    for name, tensor in pruned.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
        assert tensor.dtype == loaded.state_dict()[name].dtype, name


def test_saved_again_from_the_loaded_one(tmp_path):
    build("bert", thresholds=FINE).save_pretrained(tmp_path / "one")
    PrunedModel.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    for name in ("model.safetensors", "config.json", "token_pruning.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("family", "pruner"),
    [(f, "threshold") for f in FAMILIES] + [("bert", p) for p in PRUNERS if p != "threshold"],
)
def test_stock_transformers_opens_the_folder_dense(family, pruner, tmp_path):
    pruned = build(family, pruner, dtype=torch.float32)
    inputs = random_inputs(pruned.model, LENGTHS)
    expected = pruned.model(**inputs).logits
    pruned.save_pretrained(tmp_path)
    assert not hasattr(pruned.config, "token_pruning")
    stock, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(stock) is type(pruned.model)
    for name, weight in pruned.model.named_parameters():
        assert torch.equal(stock.get_parameter(name), weight), name
    # Close, not equal: stock transformers leaves weights unaligned, and BLAS rounds by that.
    torch.testing.assert_close(stock.eval()(**inputs).logits, expected, rtol=1e-5, atol=1e-6)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


@every_family
@pytest.mark.parametrize(
    "move", [lambda m: m.to(torch.bfloat16), lambda m: m.bfloat16(), lambda m: m.half().float()]
)
def test_thresholds_stay_float32_and_exact(family, move):
    pruned = build(family, dtype=torch.float32, thresholds=FINE)
    before = pruned.pruner.table.clone()
    parameter = pruned.pruner.table
    move(pruned)
    assert pruned.pruner.table is parameter
    assert pruned.pruner.table.dtype == torch.float32
    assert torch.equal(pruned.pruner.table, before)


@every_family
def test_bfloat16_runs_and_prunes(family):
    """And the gap to float32 is rounding, not something else."""
    pruned = build(family, dtype=torch.float32, thresholds=(0.0,) * 4)
    inputs = random_inputs(pruned.model, LENGTHS)
    expected = pruned(**inputs).logits
    pruned.to(torch.bfloat16)
    assert pruned.dtype == torch.bfloat16
    logits = pruned(**inputs).logits
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, atol=0.15, rtol=0)
    pruned.pruner.thresholds.copy_(torch.tensor(THRESHOLDS))
    trace = pruned(**inputs).trace
    assert trace.flops.sum() < 0.9 * trace.dense_flops.sum()


def test_the_pruners_tensors_lie_in_a_file_of_their_own(tmp_path):
    build("bert", dtype=torch.bfloat16, thresholds=FINE).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / FILE)
    assert tensors["table"].tolist() == torch.tensor([FINE]).tolist()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["classifier.weight"].dtype == torch.bfloat16
    assert not [name for name in tensors if "token_pruning" in name]
    assert json.loads((tmp_path / "config.json").read_text())["token_pruning"]["version"] == VERSION


def test_nobody_says_anything_of_unexpected_or_missing_weights(tmp_path, transformers_log):
    build("bert", dtype=torch.float32).save_pretrained(tmp_path / "new")
    tokenizer().save_pretrained(tmp_path / "new")
    PrunedModel.from_pretrained(tmp_path / "new")
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "new")
    pipeline("text-classification", model=str(tmp_path / "new"), device="cpu")("the film was good")
    assert not transformers_log.text
    save_as_version_2(build("bert", dtype=torch.float32), tmp_path / "old")
    PrunedModel.from_pretrained(tmp_path / "old")
    assert not transformers_log.text
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "old")
    assert "token_pruning" in transformers_log.text  # the log does hear it, of stock transformers


def save_as_version_2(pruned, folder, **options):
    """As Thresher wrote folders before the pruner's tensors had a file of their own."""
    own = {f"token_pruning.{name}": tensor for name, tensor in pruned.pruner.state_dict().items()}
    pruned.model.config.token_pruning = pruned.pruning.to_dict() | {"version": 2}
    pruned.model.save_pretrained(folder, state_dict=pruned.model.state_dict() | own, **options)
    del pruned.model.config.token_pruning


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "40KB"}])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_a_folder_of_the_second_layout_runs_as_it_did(family, options, tmp_path):
    pruned = build(family, dtype=torch.float32, thresholds=FINE)
    pruned.pruner.weight.normal_(std=0.1)
    inputs = random_inputs(pruned.model, LENGTHS)
    save_as_version_2(pruned, tmp_path, **options)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == bool(options)
    loaded = PrunedModel.from_pretrained(tmp_path)
    assert torch.equal(loaded(**inputs).logits, pruned(**inputs).logits)
    loaded.save_pretrained(tmp_path)  # over the old one, of whose files none may be left
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert torch.equal(PrunedModel.from_pretrained(tmp_path)(**inputs).logits, pruned(**inputs).logits)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda file: file.unlink(), f"incomplete: '{FILE}' is missing"),
        (lambda file: file.write_bytes(b"x"), f"{FILE} is damaged"),
        (
            lambda file: change(file, "table", lambda x: x[:, :2].clone()),
            "'token_pruning.table' has the shape",
        ),
        (lambda file: change(file, "table", lambda x: x * torch.nan), "'token_pruning.table' holds NaN"),
        (
            lambda file: change(file, "weight", lambda x: x + torch.inf),
            "'token_pruning.weight' holds NaN or inf",
        ),
        (
            lambda file: change(file, "other", lambda x: torch.ones(1)),
            "'token_pruning.other' that its pruner",
        ),
    ],
)
def test_a_damaged_file_of_the_pruner_is_refused(harm, message, tmp_path):
    """A threshold that is NaN would drop every token, and say nothing."""
    build("bert").save_pretrained(tmp_path)
    harm(tmp_path / FILE)
    with pytest.raises(UserError, match=message):
        PrunedModel.from_pretrained(tmp_path)


def test_numbers_that_are_none_are_refused_in_the_block_too(tmp_path):
    for number in (float("nan"), float("inf")):
        with pytest.raises(UserError, match="offset holds"):
            PruningConfig(offset=[0.0, number])
        with pytest.raises(UserError, match="Option 'slope' of pruner 'topk' cannot be"):
            build("bert", "topk", options={"slope": number})
    build("bert").save_pretrained(tmp_path)
    edit_config(tmp_path, lambda content: content["token_pruning"].update(offset=[0.0, float("nan"), 0.0]))
    with pytest.raises(UserError, match="offset holds nan"):
        PrunedModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("options", 3), ("prefix", "1"), ("offset", 3)])
def test_a_damaged_block_is_refused(key, value, tmp_path):
    build("bert").save_pretrained(tmp_path)
    edit_config(tmp_path, lambda content: content["token_pruning"].update({key: value}))
    with pytest.raises(UserError, match=r"options are 3|block of config\.json is damaged"):
        PrunedModel.from_pretrained(tmp_path)
    edit_config(tmp_path, lambda content: content.update(token_pruning=[value]))
    with pytest.raises(UserError, match="version None"):
        PrunedModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("version", "message"),
    [(VERSION + 1, "Upgrade Thresher"), (1, "again"), (0, "again"), (None, "again"), ("x", "again")],
)
def test_other_versions_of_the_block_are_refused(version, message, tmp_path):
    build("bert").save_pretrained(tmp_path)
    edit_config(tmp_path, lambda content: content["token_pruning"].update(version=version))
    with pytest.raises(UserError, match=f"version {version}.*{message}"):
        PrunedModel.from_pretrained(tmp_path)


def test_a_block_with_unknown_pruner_or_option_is_refused(tmp_path):
    build("bert").save_pretrained(tmp_path)
    edit_config(tmp_path, lambda content: content["token_pruning"].update(pruner="better"))
    with pytest.raises(UserError, match="no pruner 'better'; choose one of: threshold"):
        PrunedModel.from_pretrained(tmp_path)
    edit_config(tmp_path, lambda content: content["token_pruning"].update(pruner="topk", options={"k": 3}))
    with pytest.raises(UserError, match="no option 'k'; its options are: dense_layers, slope"):
        PrunedModel.from_pretrained(tmp_path)


def test_folders_that_hold_no_pruned_model(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        PrunedModel.from_pretrained(tmp_path / "nowhere")
    FAMILIES["bert"]().save_pretrained(tmp_path / "dense")
    with pytest.raises(UserError, match="thresher prune"):
        PrunedModel.from_pretrained(tmp_path / "dense")
    build("bert").save_pretrained(tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no safetensors weights"):
        PrunedModel.from_pretrained(tmp_path / "cut")


def change(file, name, how):
    tensors = load_file(file)
    tensors[name] = how(tensors.get(name))
    save_file(
        {name: tensor for name, tensor in tensors.items() if tensor is not None}, file, {"format": "pt"}
    )


@pytest.mark.parametrize(
    ("file", "name", "said"),
    [
        ("model.safetensors", "bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.0.output"),
        (FILE, "table", "token_pruning.table"),
    ],
)
def test_a_missing_tensor_is_refused(file, name, said, tmp_path):
    """Transformers would draw it at random, with no more than a warning."""
    build("bert").save_pretrained(tmp_path)
    change(tmp_path / file, name, lambda tensor: None)
    with pytest.raises(UserError, match=f"incomplete.*{said}"):
        PrunedModel.from_pretrained(tmp_path)


def test_shards_are_read(tmp_path):
    pruned = build("bert", dtype=torch.float32)
    pruned.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    inputs = random_inputs(pruned.model, LENGTHS)
    assert torch.equal(PrunedModel.from_pretrained(tmp_path)(**inputs).logits, pruned(**inputs).logits)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        PrunedModel.from_pretrained(tmp_path)
    pruned.save_pretrained(tmp_path)  # the index stays, and names shards that are gone
    assert torch.equal(PrunedModel.from_pretrained(tmp_path)(**inputs).logits, pruned(**inputs).logits)


def test_an_offset_moves_the_logits_of_the_pruned_model_alone(tmp_path):
    pruned = build("bert", dtype=torch.float32)
    inputs = random_inputs(pruned.model, LENGTHS)
    plain = pruned(**inputs).logits
    with pruned.dense():
        dense = pruned(**inputs).logits
    offset = [0.5 * n for n in range(pruned.config.num_labels)]
    pruned.pruning.offset = offset
    pruned.save_pretrained(tmp_path)
    loaded = PrunedModel.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**inputs).logits, plain + torch.tensor(offset))
    with loaded.dense():
        assert torch.equal(loaded(**inputs).logits, dense)
    with pytest.raises(UserError, match=r"1 numbers.* 3 labels"):
        PrunedModel(pruned.model, PruningConfig(offset=[0.5]))


def test_prefix_must_be_positive():
    with pytest.raises(UserError, match="1 or more"):
        PruningConfig(prefix=0)
