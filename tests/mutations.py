"""A small pruned folder, and copies of it that somebody careless or hostile has changed, drawn from a seed.

Beside each copy lies a folder ``outside`` with a whole, different model in it: whoever reads there answers
otherwise. Code that the folder brings writes the file ``ran`` beside it, if anybody runs the code.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    Gemma3TextConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from thresher import PruningConfig, prune

from .toy import FILLER, SPECIAL, tokenizer

Outcome = Literal["refused", "same", "any"]
CONFIG, INDEX, WEIGHTS, OWN = (
    "config.json",
    "model.safetensors.index.json",
    "model.safetensors",
    "token_pruning.safetensors",
)
SETTINGS, WORDS = "tokenizer_config.json", "tokenizer.json"
DEEP = "[" * 100_000
CODE = "import pathlib\npathlib.Path({ran!r}).write_text('ran')\nclass Mine: pass\n"


@dataclass(frozen=True)
class Mutation:
    """One change of a folder.

    Attributes
    ----------
    name : str
    change : callable
        Takes the folder.
    outcome : {"refused", "same", "any"}
        What must come of it; of any: refused, or answered as the changed settings say.
    kind : str
        Of the folder: one of `KINDS`.
    """

    name: str
    change: Callable[[Path], object]
    outcome: Outcome = "any"
    kind: str = "bert"


def save_folder(folder: Path, kind: str = "bert", seed: int = 0, sharded: bool = False) -> Path:
    """A pruned model of two layers with thresholds that drop, and its tokenizer."""
    torch.manual_seed(seed)
    config, make_tokenizer = KINDS[kind]
    config = copy.deepcopy(config)
    make_model = AutoModelForSequenceClassification.from_config
    pruning = PruningConfig(
        options={"score": "attention", "budgets": [0.5, 0.8]}, suffix=1, offset=[0.1, 0.0, -0.1]
    )
    pruned = prune(make_model(config), pruning)
    pruned.pruner.table.data.copy_(torch.tensor([[0.6, 0.8], [0.3, 0.4]]))
    pruned.metadata = {"text": ["text"], "max_length": 24, "base": "somewhere", "metric": "accuracy"}
    pruned.save_pretrained(folder, **({"max_shard_size": "5KB"} if sharded else {}))
    make_tokenizer().save_pretrained(folder)
    return folder


def byte_pairs() -> PreTrainedTokenizerFast:
    """As RoBERTa's."""
    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pairs = [("Ġ", "a"), ("o", "o"), ("t", "h"), ("b", "a")]
    words += ["".join(pair) for pair in pairs]
    backend = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    ends = ("</s>", 2), ("<s>", 0)
    backend.post_processor = processors.RobertaProcessing(*ends)
    roles = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **roles)


def unigram() -> PreTrainedTokenizerFast:
    """As those of SentencePiece, with its map of characters."""
    letters = [*"abcdefghijklmnopqrstuvwxyz", "▁", *(f"▁{word}" for word in FILLER)]
    words = [*SPECIAL.values(), *letters]
    backend = Tokenizer(models.Unigram([(word, -1.0 - i % 7) for i, word in enumerate(words)], unk_id=1))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap("q", "quite")), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **SPECIAL)


def charsmap(letter: str, text: str) -> bytes:
    """SentencePiece's map of one ASCII letter to a text: a double array of Darts, and the text."""
    units = [0] * 256
    units[ord(letter)] = 1 << 10 | 1 << 8 | ord(letter)  # the leaf lies at its place ^ 1
    units[ord(letter) ^ 1] = 1 << 31
    return struct.pack("<I256I", 1024, *units) + text.encode() + b"\0"


def mutations(count: int = 500, seed: int = 0) -> list[Mutation]:
    """So many: first those that were thought out, then values and bytes drawn at random."""
    found = [*_values(), *_code(), *_links(), *_shards(), *_tensors(), *_files()]
    assert len(found) < count
    draw = random.Random(seed)
    while len(found) < count:
        kind = draw.choice([_random_value, _random_value, _random_value, _random_bytes])
        found.append(kind(draw, len(found)))
    return found[:count]


SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "initializer_range": 0.4,
    "id2label": {0: "neg", 1: "pos", 2: "odd"},
    "label2id": {"neg": 0, "pos": 1, "odd": 2},
}
ROTARY = {
    "full_attention": {"rope_type": "default", "rope_theta": 400.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
}
ROBERTA = {"vocab_size": 264, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
MODERN = {"pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}
KINDS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "bert": (BertConfig(**SHAPE, vocab_size=40), tokenizer),
    "roberta": (RobertaConfig(**SHAPE | {"max_position_embeddings": 34}, **ROBERTA), byte_pairs),
    "modernbert": (
        ModernBertConfig(
            **SHAPE,
            **MODERN,
            vocab_size=48,
            rope_parameters=ROTARY,
            layer_types=["full_attention", "sliding_attention"],
            local_attention=8,
        ),
        unigram,
    ),
    "deberta-v2": (
        DebertaV2Config(
            **SHAPE,
            vocab_size=40,
            relative_attention=True,
            position_buckets=4,
            max_relative_positions=12,
            pos_att_type=["c2p", "p2c"],
            share_att_key=True,
            norm_rel_ebd="layer_norm",
        ),
        tokenizer,
    ),
    "gemma3_text": (
        Gemma3TextConfig(
            **SHAPE,
            vocab_size=40,
            pad_token_id=0,
            num_key_value_heads=1,
            head_dim=8,
            query_pre_attn_scalar=4,
            use_bidirectional_attention=True,
            sliding_window=6,
            layer_types=["full_attention", "sliding_attention"],
            rope_parameters=ROTARY,
        ),
        tokenizer,
    ),
}


# Hands on files ------------------------------------------------------------------------------------


def outside(folder: Path) -> Path:
    """The other model beside a folder."""
    return folder.parent / "outside"


def edit(name: str, *path: str | int, value: Any) -> Callable[[Path], object]:
    """Put a value into a JSON file; `None` as the only step stands for the whole file."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        place = content
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        (folder / name).write_text(json.dumps(content))

    return change


def drop(name: str, *path: str | int) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        place = content
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]
        (folder / name).write_text(json.dumps(content))

    return change


def both(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def put(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def link(name: str, target: str | None = None) -> Callable[[Path], object]:
    """Put a link to the same file of the other model in a file's place, or to `target`."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside(folder) / name if target is None else target)

    return change


def fifo(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def directory(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return change


def tensor(
    file: str, name: str, how: Callable[[torch.Tensor], torch.Tensor | None]
) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / file)
        made = how(tensors.get(name, torch.zeros(2)))
        tensors = {key: value for key, value in tensors.items() if key != name}
        save_file(
            tensors | ({} if made is None else {name: made.contiguous()}), folder / file, {"format": "pt"}
        )

    return change


def header(file: str, how: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Change the JSON at the start of a file of safetensors."""

    def change(folder: Path) -> None:
        data = (folder / file).read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        content = json.loads(data[8 : 8 + size])
        how(content)
        text = json.dumps(content).encode()
        (folder / file).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])

    return change


def shards(change: Callable[[Path], object] = lambda folder: None) -> Callable[[Path], object]:
    """The same model in several files, and then a change."""

    def apply(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        for file in (folder.parent / "shards").glob("model*"):
            shutil.copy(file, folder)
        change(folder)

    return apply


def named(name: Any) -> Callable[[Path], object]:
    """Shards of which one has another name in the index."""

    def change(folder: Path) -> None:
        content = json.loads((folder / INDEX).read_text())
        first = next(iter(content["weight_map"]))
        value = str(outside(folder) / WEIGHTS) if name == "ABSOLUTE" else name
        content["weight_map"][first] = value
        (folder / INDEX).write_text(json.dumps(content))

    return shards(change)


# What was thought out ------------------------------------------------------------------------------------

# Outcome (! refused, = same, ? any), file, way to a value, and values to put there. The kinds take turns with
# files that name none.
VALUES = Path(__file__).with_suffix(".txt")
MISSING = """
! config.json architectures|model_type|token_pruning|id2label|num_hidden_layers|hidden_size|vocab_size
! config.json intermediate_size|max_position_embeddings|token_pruning.version
? config.json type_vocab_size|token_pruning.prefix|token_pruning.suffix|token_pruning.metadata
? config.json token_pruning.options|token_pruning.pruner|token_pruning.offset
= config.json label2id|dtype|transformers_version|pad_token_id
! tokenizer.json model|added_tokens|model.vocab
"""


def _values() -> Iterator[Mutation]:
    outcomes: dict[str, Outcome] = {"!": "refused", "=": "same", "?": "any"}
    turns = cycle(KINDS)
    for line in VALUES.read_text().splitlines():
        mark, place, way, values = line.split(" ", 3)
        *given, file = place.split("/")
        for value in json.loads(values.replace("MANY", "a" * 100_000)):
            kind = given[0] if given else next(turns)
            change = edit(file, *way.split("."), value=value)
            yield Mutation(f"{kind}/{file}: {way} is {value!r:.60}", both(code, change), outcomes[mark], kind)
    for line in MISSING.strip().splitlines():
        mark, file, ways = line.split(" ", 2)
        for way in ways.split("|"):
            yield Mutation(f"{file}: {way} missing", drop(file, *way.split(".")), outcomes[mark])


def code(folder: Path) -> None:
    """Modules that tell if anybody runs them."""
    for name in ("mine.py", "modeling_mine.py", "tokenization_mine.py", "__init__.py"):
        (folder / name).write_text(CODE.format(ran=str(folder.parent / "ran")))


def _code() -> Iterator[Mutation]:
    """What asks for code of its own in two places at once."""
    auto = {
        name: "mine.Mine" for name in ("AutoConfig", "AutoModelForSequenceClassification", "AutoTokenizer")
    }
    mine = both(code, edit(CONFIG, "auto_map", value=auto))
    for name in ("mine", "", None, "bert2"):
        yield Mutation(
            f"code of type {name!r}", both(mine, edit(CONFIG, "model_type", value=name)), "refused"
        )
    yield Mutation("a class of its own", both(mine, edit(CONFIG, "architectures", value=["Mine"])), "refused")
    words = edit(SETTINGS, "auto_map", value={"AutoTokenizer": ["mine.Mine", "mine.Mine"]})
    named = edit(SETTINGS, "tokenizer_class", value="Mine")
    yield Mutation("a tokenizer of its own", both(code, words, named), "refused")
    adapter = put("adapter_config.json", '{"base_model_name_or_path": "../outside"}')
    yield Mutation("an adapter", both(code, adapter), "refused")


def _links() -> Iterator[Mutation]:
    yield Mutation("settings of the tokenizer a link out", link(SETTINGS), "refused")
    yield Mutation("settings of the tokenizer a pipe", fifo(SETTINGS))
    for name in (CONFIG, WEIGHTS, OWN, WORDS):
        for what, change in {
            "a link out": link(name),
            "a link to nothing": link(name, "/nowhere/x"),
            "a link to itself": link(name, name),
            "a device": link(name, "/dev/zero"),
            "a pipe": fifo(name),
            "a folder": directory(name),
        }.items():
            yield Mutation(f"{name} {what}", change, "refused")
    for name in ("chat_template.jinja", "special_tokens_map.json", "added_tokens.json", "vocab.txt"):
        yield Mutation(f"{name} a link out", link(name, "/etc/passwd"), "refused")
    yield Mutation(
        "a link inside", both(lambda f: (f / WEIGHTS).rename(f / "real"), link(WEIGHTS, "real")), "same"
    )


def _shards() -> Iterator[Mutation]:
    yield Mutation("shards", shards(), "same")
    for what, change in {
        "a link out": lambda f, shard: link(shard, "/etc/passwd")(f),
        "missing": lambda f, shard: remove(shard)(f),
        "twice": lambda f, shard: shutil.copy(f / shard, f / _shards_of(f)[1]),
        "a pipe": lambda f, shard: fifo(shard)(f),
    }.items():
        first = cast(Callable[[Path], object], lambda f, c=change: c(f, _shards_of(f)[0]))
        yield Mutation(f"a shard {what}", shards(first), "refused")
    yield Mutation("the index a pipe", both(remove(WEIGHTS), fifo(INDEX)), "refused")
    names: list[Any] = [
        "../outside/model.safetensors",
        "ABSOLUTE",
        "./../outside/model.safetensors",
        "..",
        None,
    ]
    names += [
        "..\\outside\\model.safetensors",
        "",
        "x\0.safetensors",
        "x\n.safetensors",
        3,
        [WEIGHTS],
        {"a": 1},
    ]
    names += [CONFIG, "pytorch_model.bin", "missing.safetensors", "~/x.safetensors", "a/b.safetensors"]
    for name in names:
        yield Mutation(f"a shard named {name!r}", named(name), "refused")
    for value in (None, [], {}, "x", 3, [WEIGHTS]):
        yield Mutation(f"a map {value!r}", shards(edit(INDEX, "weight_map", value=value)), "refused")


def _shards_of(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("model-*"))


def _tensors() -> Iterator[Mutation]:
    query = "bert.encoder.layer.1.attention.self.query.weight"
    tensors: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
        "NaN": lambda x: x * torch.nan,
        "infinite": lambda x: x + torch.inf,
        "int8": lambda x: x.to(torch.int8),
        "bool": lambda x: x.bool(),
        "float8": lambda x: x.to(torch.float8_e4m3fn),
        "missing": lambda x: None,
        "flat": lambda x: x.reshape(-1),
        "wide": lambda x: torch.cat([x, x], -1),
        "empty": lambda x: x[:0],
        "a number": lambda x: x.sum(),
    }
    headers: dict[str, Callable[[dict[str, Any], str], object]] = {
        "offsets": lambda h, n: h[n].update(data_offsets=[0, 10**12]),
        "offsets below 0": lambda h, n: h[n].update(data_offsets=[-4, 4]),
        "a huge shape": lambda h, n: h[n].update(shape=[10**6, 10**6]),
        "a shape that overflows": lambda h, n: h[n].update(shape=[2**32, 2**32, 2**32]),
        "a shape below 0": lambda h, n: h[n].update(shape=[-1, 4]),
        "another dtype": lambda h, n: h[n].update(dtype="I8"),
        "an unknown dtype": lambda h, n: h[n].update(dtype="X9"),
        "no dict": lambda h, n: h.update({n: 3}),
        "another name": lambda h, n: h.update({"x\0" * 9: h.pop(n)}),
    }
    for file, name in ((WEIGHTS, query), (OWN, "table")):
        for what, how in tensors.items():
            yield Mutation(f"{name} {what}", tensor(file, name, how), "refused")
        for what, broken in headers.items():
            change = header(file, lambda h, n=name, b=broken: b(h, n))
            yield Mutation(f"header of {name}: {what}", change, "refused")
        yield Mutation(f"{name} float64", tensor(file, name, lambda x: x.double()))
    yield Mutation("a threshold below 0", tensor(OWN, "table", lambda x: x - 1), "refused")
    yield Mutation("thresholds of 0", tensor(OWN, "table", lambda x: x * 0))
    yield Mutation("other thresholds", tensor(OWN, "table", lambda x: x * 1.5))
    yield Mutation("another tensor of the pruner", tensor(OWN, "more", lambda x: x), "refused")
    yield Mutation("another tensor of the model", tensor(WEIGHTS, "more", lambda x: x), "same")


def _files() -> Iterator[Mutation]:
    for name in (WEIGHTS, OWN):
        yield Mutation(f"{name} missing", remove(name), "refused")
        for what, size in {"": 0, " in the header": 99, " at the end": -9}.items():
            cut = cast(
                Callable[[Path], object], lambda f, n=name, s=size: put(n, (f / n).read_bytes()[:s])(f)
            )
            yield Mutation(f"{name} cut{what}", cut, "refused")
        for length in (2, 10**8, 2**63):
            start = struct.pack("<Q", length) + b"{}"
            yield Mutation(f"{name} with a header of {length}", put(name, start), "refused")
        for text in (
            struct.pack("<Q", len(DEEP)) + DEEP.encode(),
            "version https://git-lfs.github.com/spec/v1",
            b"PK\3\4",
        ):
            yield Mutation(f"{name} holds {text[:9]!r}", put(name, text), "refused")
    for name in (CONFIG, SETTINGS, WORDS):
        for text in ("", "{", "null", "[1]", DEEP, "\0" * 100, b"\xff\xfe\x00"):
            yield Mutation(f"{name} holds {text[:9]!r}", put(name, text), "refused")
    yield Mutation("pickles beside", pickled, "same")
    yield Mutation("pickles alone", both(pickled, remove(WEIGHTS)), "refused")
    yield Mutation("no words", remove(WORDS), "refused")
    for key in ("vocab_file", "merges_file", "gguf_file", "vocab", "tokenizer_file"):
        other = edit(SETTINGS, key, value="../outside/tokenizer.json")
        yield Mutation(f"no words, but {key}", both(remove(WORDS), other), "refused")
    doubled = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    nested = {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [doubled] * 6}] * 2}
    yield Mutation("words that grow", edit(WORDS, "normalizer", value=nested), "refused")
    many = [f"word{i}" for i in range(40_000)]
    special = put("special_tokens_map.json", json.dumps({"additional_special_tokens": many}))
    for what, change in {
        "settings": edit(CONFIG, "note", value={str(i): {} for i in range(200_000)}),
        "settings of words": edit(SETTINGS, "note", value=[[]] * 150_000),
        "classes": edit(CONFIG, "label2id", value={str(i): i for i in range(100_000)}),
        "special words": edit(SETTINGS, "extra_special_tokens", value=many),
        "special words in a map": special,
    }.items():
        yield Mutation(f"many {what}", change, "refused")
    yield Mutation("settings of generation", put("generation_config.json", DEEP), "same")


def pickled(folder: Path) -> None:
    """Files that run what they say, if they are opened without care."""
    ran = f"open({str(folder.parent / 'ran')!r}, 'w')"
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (folder / name).write_bytes(b"cbuiltins\neval\n(V" + ran.encode() + b"\ntR.")


# What is drawn ------------------------------------------------------------------------------------


def _places(content: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Ways to every value in JSON."""
    inner = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [path] * bool(path) + [way for key, value in inner for way in _places(value, (*path, key))]


WRONG: list[Any] = [None, "x", "", -1, 0, 10**7, 10**30, 1.5, float("nan"), float("inf"), True, [], [3], {}]


def _random_value(draw: random.Random, number: int) -> Mutation:
    name = draw.choice([CONFIG, CONFIG, CONFIG, SETTINGS, WORDS])
    seed = draw.random()

    def change(folder: Path) -> None:
        again = random.Random(seed)
        way = again.choice(_places(json.loads((folder / name).read_text())))
        if again.random() < 0.25:
            drop(name, *way)(folder)
        else:
            values = [
                *WRONG,
                {"a": {"a": [[]]}},
                "../outside",
                "\0",
                "x" * 10**5,
                [None] * 1000,
                2**31,
                1e300,
                -1e-300,
            ]
            edit(name, *way, value=again.choice(values))(folder)

    return Mutation(f"{number}: a value of {name}", change, kind=list(KINDS)[number % len(KINDS)])


def _random_bytes(draw: random.Random, number: int) -> Mutation:
    name = draw.choice([CONFIG, WEIGHTS, OWN, SETTINGS, WORDS])
    seed = draw.random()

    def change(folder: Path) -> None:
        again = random.Random(seed)
        data = bytearray((folder / name).read_bytes())
        start = again.randrange(len(data))
        how = again.choice(["cut", "zero", "draw", "repeat"])
        if how == "cut":
            del data[start:]
        elif how == "repeat":
            data[start:start] = data[start : start + 40]
        else:
            size = len(data[start : start + 8])
            data[start : start + 8] = bytes(size) if how == "zero" else again.randbytes(size)
        (folder / name).write_bytes(bytes(data))

    return Mutation(f"{number}: bytes of {name}", change, kind=list(KINDS)[number % len(KINDS)])
