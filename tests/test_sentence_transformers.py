"""sentence-transformers and pipelines open our folders, dense and pruned; and we open those of theirs."""

import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
import transformers
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoModel, BertForSequenceClassification, pipeline

import thresher.auto
from thresher import PrunedModel, PruningConfig, UserError, prune, training
from thresher.folders.sentence import attach
from thresher.folders.weights import head_named
from thresher.heads import HEADS, EmbeddingHead
from thresher.heads.pooling import MODES, layout_of
from thresher.inference.load import make_ready, open_model
from thresher.inference.predict import predict
from thresher.inputs.text import load_tokenizer
from thresher.store import CODE, load_config
from thresher.training import Data, Job, TrainingSettings
from thresher.training.base import load_base, load_dense

from . import toy
from .cases import THRESHOLDS
from .tiny import ARCHITECTURES

pytestmark = pytest.mark.usefixtures("no_grad")
TEXTS = [text for text, _ in toy.rows(9)]
PAIRS = [(text, other) for text, (other, _) in zip(TEXTS, toy.rows(9, seed=1), strict=True)]
HEAD_NAMES = ("sequence", "tokens", "spans", "choice", "generation", "embedding")  # in the order of HEADS
CLOSE = {"atol": 2e-6, "rtol": 0}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    """Where transformers copies the code of folders to."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def encoder(folder: Path, name: str = "bert", **config) -> Path:
    """A random model without a head, and a tokenizer."""
    ARCHITECTURES[name](head="embedding", dtype=torch.float32, **config).save_pretrained(folder)
    toy.tokenizer().save_pretrained(folder)
    return folder


def embedder(folder: Path, *after, modes=("mean",), **pooling) -> SentenceTransformer:
    """As sentence-transformers makes and saves one, below `folder`."""
    first = Transformer(str(encoder(folder / "encoder")))
    made = SentenceTransformer(modules=[first, Pooling(32, modes, **pooling), *after], device="cpu")
    made.save_pretrained(str(folder / "theirs"))
    return made


def pruned_of(model, **settings) -> PrunedModel:
    pruned = prune(model, PruningConfig(**settings)).eval()
    pruned.pruner.thresholds.copy_(torch.tensor(THRESHOLDS))
    return pruned


def saved(pruned: PrunedModel, folder: Path) -> str:
    pruned.save_pretrained(folder)
    toy.tokenizer().save_pretrained(folder)
    return str(folder)


def tokens(texts) -> dict[str, torch.Tensor]:
    columns = zip(*texts, strict=True) if isinstance(texts[0], tuple) else [texts]
    return dict(toy.tokenizer()(*map(list, columns), padding=True, return_tensors="pt"))


def vectors(pruned: PrunedModel, texts=TEXTS) -> torch.Tensor:
    """What we pool; some tokens are dropped for it."""
    inputs = tokens(texts)
    output = pruned(**inputs)
    assert output.trace.flops.sum() < 0.9 * output.trace.dense_flops.sum()
    return pruned.head.read(output, inputs)


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def close(found, expected, **options) -> None:
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), **(CLOSE | options))


# Embedders ------------------------------------------------------------------------------------------------


def test_encode_gives_what_the_model_gives_dense_and_pruned(tmp_path):
    theirs = embedder(tmp_path, Dense(64, 16), Normalize(), modes=("mean", "cls"))
    model, missing = load_dense(str(tmp_path / "theirs"))
    assert not missing
    pruned = pruned_of(model)
    folder = saved(pruned, tmp_path / "ours")
    dense, ours = SentenceTransformer(folder), SentenceTransformer(folder, trust_remote_code=True)
    assert type(dense[0].model) is transformers.BertModel
    assert isinstance(ours[0].model, PrunedModel)
    close(dense.encode(TEXTS), theirs.encode(TEXTS))
    expected = vectors(pruned)
    for size in (1, 4, 32):
        close(ours.encode(TEXTS, batch_size=size), expected)
    assert numpy.abs(ours.encode(TEXTS) - dense.encode(TEXTS)).max() > 0.05
    with pruned.dense():
        inputs = tokens(TEXTS)
        close(pruned.head.read(pruned(**inputs), inputs), theirs.encode(TEXTS))
    close(vectors(PrunedModel.from_pretrained(folder)), expected, atol=0)


def test_files_stay_as_they_were_whoever_saves(tmp_path):
    embedder(tmp_path, Dense(32, 8, bias=False), Normalize())
    edit(tmp_path / "theirs" / "config_sentence_transformers.json", prompts={"query": "find: "})
    folder = saved(pruned_of(load_dense(str(tmp_path / "theirs"))[0]), tmp_path / "ours")
    expected = SentenceTransformer(folder, trust_remote_code=True)
    expected.save_pretrained(str(tmp_path / "again"))
    PrunedModel.from_pretrained(folder).save_pretrained(tmp_path / "by us")
    toy.tokenizer().save_pretrained(tmp_path / "by us")
    SentenceTransformer(folder, trust_remote_code=True).save_pretrained(folder)  # over itself
    for where in (Path(folder), tmp_path / "again", tmp_path / "by us"):
        for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json", CODE):
            assert (where / name).read_bytes() == (Path(folder) / name).read_bytes()
        weights = load_file(where / "2_Dense" / "model.safetensors")
        assert torch.equal(weights["linear.weight"], expected[2].linear.weight)
        found = SentenceTransformer(str(where), trust_remote_code=True)
        assert found.prompts["query"] == "find: "
        close(found.encode(TEXTS), expected.encode(TEXTS), atol=0)
        close(found.encode_query(TEXTS), expected.encode_query(TEXTS), atol=0)
        close(vectors(PrunedModel.from_pretrained(where)), expected.encode(TEXTS))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_every_mode_of_pooling(mode, padding_side):
    """The same as sentence-transformers' own, whatever the mode and the padding."""
    inputs = tokens(TEXTS)
    states, mask = torch.randn(*inputs["input_ids"].shape, 32), inputs["attention_mask"]
    if padding_side == "left":
        mask = mask.flip(1)
    theirs = Pooling(32, mode)({"token_embeddings": states, "attention_mask": mask})["sentence_embedding"]
    packed, values = thresher.packed.PackedBatch.from_padded(mask, states)
    close(MODES[mode](values, packed), theirs)


DENSE = {
    "as it is by default": {},
    "without bias": {"bias": False, "activation_function": None},
    "with its input added": {"use_residual": True, "activation_function": torch.nn.GELU()},
    "narrower, with its input added": {"use_residual": True, "out_features": 8},
}


@pytest.mark.parametrize("options", DENSE.values(), ids=DENSE)
def test_every_kind_of_dense_layer(options, tmp_path):
    theirs = embedder(tmp_path, Dense(**{"in_features": 32, "out_features": 32} | options))
    folder = tmp_path / "theirs"
    model, _ = load_dense(str(folder))
    with pruned_of(model).dense() as ours:
        inputs = tokens(TEXTS)
        close(ours.head.read(ours(**inputs), inputs), theirs.encode(TEXTS))


def test_folders_of_old_versions(tmp_path):
    """Other names for classes and modes, pickled weights, no folder for what has no settings."""
    theirs = embedder(tmp_path, Dense(64, 16), Normalize(), modes=("max", "mean"))
    folder = tmp_path / "theirs"
    places = ["", "1_Pooling", "2_Dense", "3_Normalize"]
    old = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(
            zip(places, ("Transformer", "Pooling", "Dense", "Normalize"), strict=True)
        )
    ]
    (folder / "modules.json").write_text(json.dumps(old))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12, "do_lower_case": false}')
    modes = {
        f"pooling_mode_{mode}_tokens": mode in ("max", "mean") for mode in ("mean", "max", "mean_sqrt_len")
    }
    settings = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False} | modes
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    torch.save(theirs[2].state_dict(), folder / "2_Dense" / "pytorch_model.bin")
    (folder / "2_Dense" / "model.safetensors").unlink()
    (folder / "3_Normalize" / "config.json").unlink()
    (folder / "3_Normalize").rmdir()
    pruned = pruned_of(load_dense(str(folder))[0])
    with pytest.raises(UserError, match=r"2_Dense/model\.safetensors' is missing"):
        attach(pruned.model, str(folder))  # as for what is pruned already, which has no weights in pickles
    layout = layout_of(pruned.model)
    assert (layout.modes, layout.max_length) == (("max", "mean"), 12)
    assert pruned.family.length_limit() == 12
    assert pruned.family.length_limit(20) == 20
    ours = saved(pruned, tmp_path / "ours")
    assert not list(Path(ours).rglob("*.bin"))
    short = [" ".join(text.split()[:10]) for text in TEXTS]
    close(SentenceTransformer(ours, trust_remote_code=True).encode(TEXTS), vectors(pruned, short))
    close(SentenceTransformer(ours).encode(TEXTS), SentenceTransformer(str(folder)).encode(TEXTS))


@torch.enable_grad()
def test_prune_keeps_all_that_makes_the_vectors(tmp_path):
    """The recipe, and what `predict` answers with the folder that it wrote."""
    theirs = embedder(tmp_path, Dense(32, 16), Normalize())
    edit(tmp_path / "theirs" / "tokenizer_config.json", model_max_length=16)
    texts = Data(str(toy.write_tsv(tmp_path / "train.tsv", 60)), ["text"])
    settings = TrainingSettings(budget=0.7, soft_epochs=1.0, hard_epochs=1.0, precision="fp32", evaluations=1)
    report = training.prune(
        Job(str(tmp_path / "theirs"), texts, tmp_path / "ours", settings), PruningConfig()
    )
    assert report.flops_ratio < 0.8
    model, encode, task = open_model(tmp_path / "ours")
    assert (task.kind, encode.max_length) == ("embedding", 16)
    columns = encode.encode(TEXTS)
    expected = SentenceTransformer(str(tmp_path / "ours"), trust_remote_code=True).encode(TEXTS)
    found = predict(make_ready(model, encode, columns), encode, columns).logits
    close(found, expected, atol=1e-5)
    base = SentenceTransformer(str(tmp_path / "theirs")).encode(TEXTS)
    assert (expected * base).sum(1).mean() > 0.8
    assert numpy.abs(expected - base).max() > 0.01
    assert theirs[2].linear.weight.shape == layout_of(model.model).after[0].weight.shape


def test_how_many_numbers_count(tmp_path):
    embedder(tmp_path, Normalize())
    edit(tmp_path / "theirs" / "config_sentence_transformers.json", truncate_dim=20)
    pruned = pruned_of(load_dense(str(tmp_path / "theirs"))[0])
    ours = SentenceTransformer(saved(pruned, tmp_path / "ours"), trust_remote_code=True)
    assert ours.encode(TEXTS).shape == (9, 20)
    close(ours.encode(TEXTS), vectors(pruned))


def test_a_model_of_no_sentence_transformers_folder_is_pooled_by_the_mean(tmp_path):
    pruned = pruned_of(load_dense(str(encoder(tmp_path / "encoder")))[0])
    assert layout_of(pruned.model) is None
    ours = SentenceTransformer(saved(pruned, tmp_path / "ours"), trust_remote_code=True)
    assert not (tmp_path / "ours" / "modules.json").exists()
    close(ours.encode(TEXTS), vectors(pruned))


def test_the_mean_of_the_survivors(tmp_path):
    """In place of the states of dropped tokens."""
    embedder(tmp_path)
    carried, mean = (pruned_of(load_dense(str(tmp_path / "theirs"))[0], dropped=x) for x in ("carry", "mean"))
    ours = SentenceTransformer(saved(mean, tmp_path / "ours"), trust_remote_code=True)
    close(ours.encode(TEXTS), vectors(mean))
    assert (vectors(mean) - vectors(carried)).abs().max() > 0.05


@pytest.mark.parametrize("name", ["distilbert", "mpnet", "modernbert", "nomic_bert"])
def test_other_architectures(name, tmp_path):
    pruned = pruned_of(load_dense(str(encoder(tmp_path / "encoder", name)))[0])
    folder = saved(pruned, tmp_path / "ours")
    close(
        SentenceTransformer(folder, trust_remote_code=True).encode(TEXTS, batch_size=4),
        vectors(pruned),
        atol=1e-5,
    )


def test_t5_is_dense_until_the_model_is_assigned(tmp_path):
    """sentence-transformers opens the encoders of such models by themselves, not by Auto classes."""
    folder = encoder(tmp_path / "encoder", "t5")
    pruned = pruned_of(load_dense(str(folder), EmbeddingHead)[0])
    ours = SentenceTransformer(saved(pruned, tmp_path / "ours"), trust_remote_code=True)
    assert not isinstance(ours[0].model, PrunedModel)
    ours[0].model = PrunedModel.from_pretrained(tmp_path / "ours")
    close(ours.encode(TEXTS, batch_size=4), vectors(pruned), atol=1e-5)


def test_modules_json_says_that_a_folder_is_an_embedder(tmp_path):
    embedder(tmp_path)
    folder = tmp_path / "theirs"
    edit(folder / "config.json", architectures=["BertForMaskedLM"])
    assert head_named(load_config(folder)) is EmbeddingHead
    assert type(load_dense(str(folder))[0]) is transformers.BertModel
    (folder / "modules.json").unlink()
    assert head_named(load_config(folder)) is not EmbeddingHead


def test_the_last_token_stays_where_it_is_pooled(tmp_path):
    embedder(tmp_path, modes="lasttoken")
    model, _ = load_dense(str(tmp_path / "theirs"))
    assert prune(model).pruning.suffix == 1


@torch.enable_grad()
def test_vectors_teach_the_model(tmp_path):
    embedder(tmp_path, Dense(160, 16), modes=tuple(mode for mode in MODES if mode != "lasttoken"))
    pruned = prune(load_dense(str(tmp_path / "theirs"))[0])
    packed, values = pruned.family.pack(tokens(TEXTS))
    pruned.run(packed, values)[0].logits.square().sum().backward()
    assert all(
        weight.grad is not None for name, weight in pruned.model.named_parameters() if "pooler" not in name
    )


@pytest.fixture(scope="module")
def with_dense(tmp_path_factory) -> Path:
    embedder(folder := tmp_path_factory.mktemp("embedder"), Dense(32, 16))
    return folder / "theirs"


def named(index: int, **changes):
    def change(folder: Path) -> None:
        file = folder / "modules.json"
        modules = json.loads(file.read_text())
        modules[index] |= changes
        file.write_text(json.dumps(modules))

    return change


def told(file: str, **changes):
    return lambda folder: edit(folder / file, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            named(2, type="sentence_transformers.sentence_transformer.modules.cnn.CNN"),
            "modules.cnn.CNN' in place 3",
        ),
        (named(2, type="modeling_mine.Dense"), "the module 'modeling_mine.Dense'"),
        (named(2, type="pylate.models.Dense.Dense"), "the module 'pylate.models.Dense.Dense'"),
        (named(0, type="sentence_transformers.models.StaticEmbedding"), "StaticEmbedding' in place 1"),
        (named(0, path="0_Transformer"), r"encoder in '0_Transformer'.*save_pretrained\(other\)"),
        (named(2, path="../outside"), "modules.json is damaged"),
        (named(2, path="nowhere"), "incomplete: 'nowhere/model.safetensors' is missing"),
        (named(1, path="nowhere"), "incomplete: 'nowhere/config.json' is missing"),
        (told("1_Pooling/config.json", pooling_mode="attention"), "pooling_mode .*'attention'.*of: cls, max"),
        (
            told("1_Pooling/config.json", embedding_dimension=64),
            "embedding_dimension 64, and the encoder has 32",
        ),
        (told("2_Dense/config.json", activation_function="mine.Act"), "activation_function 'mine.Act'"),
        (told("2_Dense/config.json", activation_function="torch.load"), "activation_function 'torch.load'"),
        (told("2_Dense/config.json", out_features=9), r"asks for numbers 'linear.weight' \[9, 32\]"),
        (
            told("2_Dense/config.json", module_input_name="token_embeddings"),
            "module_input_name 'token_embeddings'",
        ),
        (told("sentence_bert_config.json", do_lower_case=True), "texts in lower case"),
        (told("sentence_bert_config.json", max_seq_length="many"), "max_seq_length 'many'"),
        (
            told("sentence_bert_config.json", modality_config={"text": {"method": "encode"}}),
            "not its last hidden states",
        ),
    ],
)
def test_what_cannot_be_kept_is_named(change, message, with_dense, tmp_path):
    shutil.copytree(with_dense, tmp_path / "theirs")
    change(tmp_path / "theirs")
    with pytest.raises(UserError, match=message):
        load_dense(str(tmp_path / "theirs"))


def test_a_folder_without_pooling_is_refused(tmp_path):
    embedder(tmp_path)
    file = tmp_path / "theirs" / "modules.json"
    file.write_text(json.dumps(json.loads(file.read_text())[:1]))
    with pytest.raises(UserError, match="no module 'Pooling'"):
        load_dense(str(tmp_path / "theirs"))


def test_texts_in_lower_case_as_the_tokenizer_has_them(tmp_path):
    """Once sentence-transformers has saved such a model, its tokenizer does it."""
    embedder(tmp_path)
    edit(tmp_path / "theirs" / "sentence_bert_config.json", do_lower_case=True)
    theirs = SentenceTransformer(str(tmp_path / "theirs"))
    theirs.save_pretrained(str(tmp_path / "low"))
    edit(tmp_path / "low" / "sentence_bert_config.json", do_lower_case=True)
    load_dense(str(tmp_path / "low"))
    assert "Lowercase" in load_tokenizer(tmp_path / "low").backend_tokenizer.to_str()


# Cross-encoders -------------------------------------------------------------------------------------------


@pytest.fixture
def reranker(tmp_path):
    """As sentence-transformers saves one, whose scores are not squeezed, as they would be by default."""
    base = toy.save_model(tmp_path / "base", ("score",))
    theirs = CrossEncoder(str(base), activation_fn=torch.nn.Identity(), device="cpu")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    return theirs


def test_predict_and_rank_give_what_the_model_gives(reranker, tmp_path):
    model, task = load_base(str(tmp_path / "theirs"))
    assert task.kind == "regression"
    pruned = pruned_of(model)
    pruned.pruner.thresholds.fill_(0.95)  # its attention is nearly even
    folder = saved(pruned, tmp_path / "ours")
    dense, ours = CrossEncoder(folder), CrossEncoder(folder, trust_remote_code=True)
    output = pruned(**tokens(PAIRS))
    assert output.trace.flops.sum() < 0.9 * output.trace.dense_flops.sum()
    close(dense.predict(PAIRS), reranker.predict(PAIRS))
    for size in (1, 4):
        close(ours.predict(PAIRS, batch_size=size), output.logits[:, 0])
    assert numpy.abs(ours.predict(PAIRS) - dense.predict(PAIRS)).max() > 0.01
    query, texts = TEXTS[0], TEXTS[1:]
    scores = pruned(**tokens([(query, text) for text in texts])).logits[:, 0]
    ranked = ours.rank(query, texts)
    assert [row["corpus_id"] for row in ranked] == scores.argsort(descending=True).tolist()
    close([float(row["score"]) for row in ranked], scores.sort(descending=True).values)
    ours.save_pretrained(str(tmp_path / "again"))
    again = CrossEncoder(str(tmp_path / "again"), trust_remote_code=True)
    close(again.predict(PAIRS), ours.predict(PAIRS), atol=0)
    assert PrunedModel.from_pretrained(tmp_path / "again").config.num_labels == 1


def test_a_classifier_says_no_more_that_it_is_an_embedder(tmp_path):
    """modules.json of another model may not outlive it."""
    embedder(tmp_path)
    folder = tmp_path / "theirs"
    prune(ARCHITECTURES["bert"](head="embedding", dtype=torch.float32)).save_pretrained(folder)
    assert (folder / "modules.json").exists()  # as where sentence-transformers saves, module by module
    prune(ARCHITECTURES["bert"](dtype=torch.float32)).save_pretrained(folder)
    assert not (folder / "modules.json").exists()
    assert type(PrunedModel.from_pretrained(folder).model) is BertForSequenceClassification


def test_an_embedder_may_become_a_classifier(tmp_path):
    embedder(tmp_path, Normalize())
    named(2, type="modeling_mine.Mine")(tmp_path / "theirs")  # which does not matter
    model, missing = load_dense(str(tmp_path / "theirs"), HEADS[0], new_head=True)
    assert missing
    assert layout_of(model) is None


# Auto classes and pipelines -------------------------------------------------------------------------------


@pytest.mark.parametrize(("head", "name"), list(zip(HEADS, HEAD_NAMES, strict=True)), ids=HEAD_NAMES)
def test_auto_classes_open_every_head_dense_or_pruned(head, name, tmp_path):
    architecture = "bart" if name == "generation" else "bert"
    pruned = pruned_of(ARCHITECTURES[architecture](head=name, dtype=torch.float32))
    saved(pruned, tmp_path)
    for auto in (head.auto, *(auto for auto in head.instead if type(pruned.config) in auto._model_mapping)):
        found = auto.from_pretrained(tmp_path, trust_remote_code=True)
        assert type(found) is thresher.auto.PrunedModel
        assert type(found.model) is type(pruned.model)
        for refused in ({}, {"trust_remote_code": False}):
            assert type(auto.from_pretrained(tmp_path, **refused)) is type(pruned.model)
    inputs = tokens(TEXTS)
    if name == "choice":
        inputs = {key: x.view(3, 3, -1) for key, x in inputs.items()}
    if name == "generation":
        assert torch.equal(found.generate(**inputs, max_length=9), pruned.generate(**inputs, max_length=9))
        inputs["decoder_input_ids"] = inputs["input_ids"]
    output = pruned(**inputs)
    assert output.trace.flops.sum() < output.trace.dense_flops.sum()
    for key, values in output.items():
        if torch.is_tensor(values):
            close(found(**inputs)[key], values, atol=0)
    found.save_pretrained(tmp_path / "again")
    assert isinstance(head.auto.from_pretrained(tmp_path / "again", trust_remote_code=True), PrunedModel)


def test_options_of_auto_classes(tmp_path):
    pruned = pruned_of(ARCHITECTURES["bert"](head="embedding", dtype=torch.float32))
    saved(pruned, tmp_path)

    def opened(**options):
        return AutoModel.from_pretrained(tmp_path, trust_remote_code=True, **options)

    assert opened(dtype="bfloat16").dtype == opened(torch_dtype=torch.bfloat16).dtype == torch.bfloat16
    assert opened(dtype="auto", attn_implementation="eager").dtype == torch.float32
    assert opened(precision="bf16", engine="torch").precision == "bf16"
    with pytest.raises(UserError, match=r"takes no 'device_map'.*move it"):
        opened(device_map="cpu")
    with pytest.raises(UserError, match="has 3 labels, not 5"):
        opened(num_labels=5)
    fast = SentenceTransformer(str(tmp_path), trust_remote_code=True, model_kwargs={"engine": "torch"})
    close(fast.encode(TEXTS), vectors(pruned), atol=1e-5)


def test_the_code_in_a_folder_is_never_run_by_us(tmp_path):
    saved(pruned_of(ARCHITECTURES["bert"](dtype=torch.float32)), tmp_path / "folder")
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nfrom thresher.auto import PrunedModel\n"
    (tmp_path / "folder" / CODE).write_text(code)
    model = PrunedModel.from_pretrained(tmp_path / "folder")
    load_base(str(tmp_path / "folder"))
    load_tokenizer(tmp_path / "folder")
    assert not hasattr(model.config, "auto_map")
    model.save_pretrained(tmp_path / "again")
    assert "open(" not in (tmp_path / "again" / CODE).read_text()
    assert not ran.exists()
    HEADS[0].auto.from_pretrained(tmp_path / "folder", trust_remote_code=True)
    assert ran.exists()  # as it would be, by whoever trusts it


@pytest.mark.parametrize("by_name", [False, True], ids=["of a model", "of a folder"])
@pytest.mark.parametrize(
    ("task", "head"),
    [
        ("text-classification", "sequence"),
        ("token-classification", "tokens"),
        ("feature-extraction", "embedding"),
    ],
)
def test_pipelines_give_the_same_in_batches(task, head, by_name, tmp_path, transformers_log):
    pruned = pruned_of(ARCHITECTURES["bert"](head=head, dtype=torch.float32))
    folder = saved(pruned, tmp_path)
    model = folder if by_name else PrunedModel.from_pretrained(folder)
    run = pipeline(task, model=model, tokenizer=toy.tokenizer(), device="cpu", trust_remote_code=True)
    assert isinstance(run.model, PrunedModel)
    one, four = (run(TEXTS, batch_size=size) for size in (1, 4))
    inputs = tokens(TEXTS)
    output, lengths = pruned(**inputs), inputs["attention_mask"].sum(1).tolist()
    assert output.trace.flops.sum() < 0.9 * output.trace.dense_flops.sum()
    for row, (answer, other) in enumerate(zip(one, four, strict=True)):
        if task == "feature-extraction":  # which pads in batches
            close(answer[0], output.last_hidden_state[row, : lengths[row]])
            close(other[0][: lengths[row]], answer[0])
            continue
        logits = output.logits[row]
        if task == "token-classification":
            logits = logits[1 : lengths[row] - 1]  # without [CLS] and [SEP]
            close([word["score"] for word in answer], logits.softmax(-1).amax(-1).numpy())
        else:
            answer, other = [answer], [other]
            close(answer[0]["score"], float(logits.softmax(-1).max()))
        for found, expected in zip(other, answer, strict=True):
            close(float(found.pop("score")), float(expected.pop("score")))
            assert found == expected
    assert "not supported" not in transformers_log.text
