"""Folders that are replaced while they are read, saved by threads at once, and who may read them."""

import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from thresher import PrunedModel, UserError, store
from thresher.config import VERSION
from thresher.folders import weights
from thresher.store import FILE

from .cases import build

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.mark.parametrize("often", [1, 99])
def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(often, tmp_path, monkeypatch):
    old, new = build("bert", dtype=torch.float32), build("bert", "topk", dtype=torch.float32)
    new.model.classifier.weight.add_(1)
    old.save_pretrained(tmp_path)
    left, look = ([new, old] * often)[:often], store.look

    def meanwhile(files):
        if left:
            left.pop(0).save_pretrained(tmp_path)
        return look(files)

    monkeypatch.setattr(store, "look", meanwhile)
    if often > 1:
        with pytest.raises(UserError, match="is being written"):
            PrunedModel.from_pretrained(tmp_path)
        return
    loaded = PrunedModel.from_pretrained(tmp_path)
    assert loaded.pruning.pruner == "topk"
    assert torch.equal(loaded.model.classifier.weight, new.model.classifier.weight)


@pytest.mark.parametrize("place", ["_stored", "fetch", "build", "make_pruner"])
def test_a_folder_that_is_removed_while_it_is_read_is_said_to_be_gone(place, tmp_path, monkeypatch):
    build("bert").save_pretrained(tmp_path / "model")
    step = getattr(store, place)

    def removed(*args, **options):
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        return step(*args, **options)

    monkeypatch.setattr(store, place, removed)
    with pytest.raises(UserError, match="There is no folder"):
        PrunedModel.from_pretrained(tmp_path / "model")


def test_weights_that_vanish_before_they_are_counted_are_a_users_error(tmp_path):
    pruned = build("bert")
    pruned.save_pretrained(tmp_path)
    stored = weights.look([str(tmp_path / "model.safetensors")])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        weights.build(tmp_path, pruned.config, stored)


def test_threads_may_save_one_model_at_once(tmp_path):
    pruned = build("bert", dtype=torch.float32)
    before = pruned.config.to_dict()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(pruned.save_pretrained, [tmp_path / str(number) for number in range(24)]))
    for folder in tmp_path.iterdir():
        content = json.loads((folder / "config.json").read_text())
        assert content["token_pruning"]["version"] == VERSION
        assert content["architectures"] == ["BertForSequenceClassification"]
    assert not hasattr(pruned.config, "token_pruning")
    assert before.keys() == pruned.config.to_dict().keys()


def test_saving_leaves_the_live_config_alone(tmp_path, monkeypatch):
    """Who reads or saves the model meanwhile sees no block in it."""
    pruned = build("bert")
    seen, write = [], type(pruned.model).save_pretrained

    def watched(model, *args, **options):
        seen.append(hasattr(model.config, "token_pruning"))
        write(model, *args, **options)

    monkeypatch.setattr(type(pruned.model), "save_pretrained", watched)
    pruned.save_pretrained(tmp_path)
    assert seen == [False]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "40KB"}])
def test_who_may_read_the_config_may_read_the_weights(mask, options, tmp_path):
    before = os.umask(mask)
    try:
        build("bert").save_pretrained(tmp_path / "new", **options)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "new").iterdir()} == {0o666 & ~mask}


def test_new_shards_in_a_private_folder_stay_private(tmp_path):
    build("bert").save_pretrained(tmp_path)
    for file in tmp_path.iterdir():
        file.chmod(0o600)
    build("bert").save_pretrained(tmp_path, max_shard_size="40KB")
    assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("*.safetensors")} == {0o600}


@pytest.fixture
def nobody():
    """The user that these tests run as, or else one who may not read everything."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    if os.getuid() == 0:
        os.seteuid(0)
    folder.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="files have no modes there")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", FILE, ""])
def test_what_may_not_be_read_is_not_called_damaged(name, nobody):
    build("bert").save_pretrained(nobody)
    nobody.chmod(0o755)
    (nobody / name).chmod(0)
    if os.getuid() == 0:
        os.seteuid(65534)
    with pytest.raises(UserError, match=rf"{name} cannot be read \(Permission denied\)"):
        PrunedModel.from_pretrained(nobody)
