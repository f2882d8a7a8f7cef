"""Folders as people have them, with links, classes and settings of their own: refused only where need be."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from thresher import PrunedModel, PruningConfig, UserError, prune
from thresher.folders import pickled
from thresher.folders import read as folders_module
from thresher.folders.model_config import make_config
from thresher.folders.read import TOKENIZERS
from thresher.folders.weights import weight_files
from thresher.inputs.text import load_tokenizer
from thresher.training.base import load_base

from .mutations import KINDS, save_folder
from .toy import save_model


@pytest.mark.parametrize("name", ["train.csv", "data.json", "optimizer.pt", "training_args.bin", "README.md"])
def test_links_that_nobody_opens_stay(name, tmp_path):
    folder = save_folder(tmp_path / "folder")
    (tmp_path / "elsewhere").write_text("text")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    load_tokenizer(folder)
    PrunedModel.from_pretrained(folder)


@pytest.mark.parametrize(
    "name", ["vocab.txt", "sentencepiece.bpe.model", "special_tokens_map.json", "merges.txt"]
)
def test_links_that_a_tokenizer_opens_are_refused(name, tmp_path):
    folder = save_folder(tmp_path / "folder")
    (tmp_path / "elsewhere").write_text("{}")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{name}' is a link that leads out .* put the file itself there"):
        load_tokenizer(folder)


def test_links_to_weights_elsewhere_are_refused_with_advice(tmp_path):
    base, folder = save_model(tmp_path / "base"), save_model(tmp_path / "folder")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../base/model.safetensors")
    assert base.is_dir()
    with pytest.raises(UserError, match=r"a link that leads out .* put the file itself there"):
        load_base(str(folder))


def test_the_files_of_all_tokenizers_are_known():
    """Names that transformers' tokenizers open, as their sources say."""
    sources = Path(transformers.__path__[0])
    named = re.compile(r'"(?:\w*_file|\w*_filename)": "([\w.-]+\.[\w]+)"')
    files = [*sources.glob("models/*/tokenization_*.py"), *sources.glob("tokenization_utils*.py")]
    found = {name for file in files for name in named.findall(file.read_text(encoding="utf-8"))}
    assert {"vocab.txt", "merges.txt", "spiece.model", "tokenizer.json"} <= found
    assert not [name for name in found if not TOKENIZERS.fullmatch(name)]


def test_a_class_of_the_users_own_is_saved_under_the_name_that_all_know(tmp_path):
    class MineForSequenceClassification(BertForSequenceClassification):
        pass

    model = MineForSequenceClassification(KINDS["bert"][0]).eval()
    pruned = prune(model, PruningConfig())
    pruned.save_pretrained(tmp_path / "folder")
    PrunedModel.from_pretrained(tmp_path / "folder")
    assert (
        type(AutoModelForSequenceClassification.from_pretrained(tmp_path / "folder"))
        in type(model).__mro__[1:]
    )
    assert model.config.architectures == [type(model).__name__]  # as transformers leaves it
    assert not hasattr(model.config, "token_pruning")


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_none_are_left_out(kind, tmp_path):
    folder = save_folder(tmp_path / "folder", kind)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"num_labels": None}))
    assert PrunedModel.from_pretrained(folder).config.num_labels == 3


def modern(**settings):
    return make_config({"model_type": "modernbert", **settings}, "config.json")


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_type": "yarn", "factor": 2.0, "truncate": False, "mscale_all_dim": 0.0},
        {"rope_type": "default", "note": [1, "a"], "partial_rotary_factor": 1.0},
    ],
)
def test_settings_of_rotation_may_be_of_any_kind(settings):
    rotary = {"full_attention": {"rope_theta": 1e4, **settings}, "sliding_attention": {"rope_theta": 1e4}}
    modern(rope_parameters=rotary, has_rope=False, europe=["a"], scope_of_use=-1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rope_theta", v) for v in (0, -1.0, True, "x", float("inf"))]
    + [("partial_rotary_factor", v) for v in (1e9, 0)]
    + [("factor", 0), ("attention_factor", float("nan")), ("rope_theta", [0])],
)
def test_numbers_of_rotation_that_are_none_are_refused(name, value):
    with pytest.raises(UserError, match="its numbers must be finite"):
        modern(rope_parameters={"full_attention": {name: value}})


def test_heads_of_a_width_of_their_own_are_refused():
    with pytest.raises(UserError, match=r"head_dim is 1000; it must be 64"):
        modern(head_dim=1000)


def test_a_hub_that_fails_on_the_way_is_put_into_words(monkeypatch):
    """The config came, and then the connection broke."""

    def break_off(*_, **__):
        raise OSError("We couldn't connect to 'https://huggingface.co'\nto load the files")

    monkeypatch.setattr(folders_module, "cached_file", break_off)
    with pytest.raises(UserError, match=r"'somebody/model': We couldn't connect to"):
        weight_files("somebody/model")


@pytest.mark.parametrize(
    ("values", "says"),
    [(1_100_000, "is too large .4,40.* bytes"), (300_000, "holds more than 262,144 values")],
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_settings_that_would_fill_the_memory_are_refused_unread(name, values, says, tmp_path):
    folder = save_folder(tmp_path / "folder")
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | {"more": [[]] * values}))
    with pytest.raises(UserError, match=f"{name} {says}"):
        load_tokenizer(folder)


def test_settings_that_nobody_can_set_are_left_aside(tmp_path, capfd):
    folder = save_folder(tmp_path / "folder")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"use_return_dict": "\033[31m"}))
    PrunedModel.from_pretrained(folder)
    assert "\033[31m" not in capfd.readouterr().err


def test_an_archive_that_reads_two_ways_is_refused(tmp_path):
    """Its end points at another list of parts than the one that lies before the pointer."""
    torch.save({"a": torch.ones(3)}, file := tmp_path / "weights.bin")
    assert pickled.load(str(file), "cpu")["a"].sum() == 3
    content = file.read_bytes()
    assert content[-42:-38] == b"PK\6\7"
    for wrong in (
        content[:-34] + struct.pack("<Q", 0) + content[-26:],
        content[:-2] + b"\3\0abc",
    ):
        file.write_bytes(wrong)
        with pytest.raises(ValueError, match="is not where PyTorch puts it"):
            pickled.load(str(file), "meta")


def test_many_classes_are_compared_once_each():
    """Each with each would take minutes."""
    names = {str(number): f"class {number}" for number in range(60_000)}
    content = {
        "model_type": "bert",
        "id2label": names,
        "label2id": {name: int(key) for key, name in names.items()},
    }
    assert make_config(content, "config.json").num_labels == 60_000
    content["label2id"]["class 5"] = 6
    with pytest.raises(UserError, match="disagree on the class 'class 5'"):
        make_config(content, "config.json")
