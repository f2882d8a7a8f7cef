"""A tiny trained-looking model on disk, with a tokenizer, and texts whose labels it can learn."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
FILLER = [
    "the",
    "a",
    "film",
    "plot",
    "was",
    "is",
    "and",
    "of",
    "very",
    "quite",
    "long",
    "scene",
    "actor",
    "music",
]
TELLING = {"neg": ["bad", "dull"], "pos": ["good", "bright"]}


def tokenizer() -> PreTrainedTokenizerFast:
    """One id a word."""
    words = [*SPECIAL.values(), *FILLER, *TELLING["neg"], *TELLING["pos"]]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **SPECIAL)


def save_model(folder: Path, names: tuple[str, ...] = ("neg", "pos"), **config: object) -> Path:
    """A random BERT of 4 layers with a head, saved by stock transformers."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=40,
            hidden_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=64,
            initializer_range=0.15,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            **({"max_position_embeddings": 64} | config),
        )
    )
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_encoder(folder: Path, layers: int = 4) -> Path:
    """A random BERT without a head."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    config = BertConfig(vocab_size=40, max_position_embeddings=64, initializer_range=0.15, **sizes)
    BertModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of 4 to 24 words with one telling word, and their labels."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        label = draw.choice(["neg", "pos"])
        words = draw.choices(FILLER, k=draw.randint(3, 23))
        words.insert(draw.randint(0, len(words)), draw.choice(TELLING[label]))
        found.append((" ".join(words), label))
    return found


def write_tsv(path: Path, count: int, seed: int = 0) -> Path:
    lines = ["text\tlabel", *("\t".join(row) for row in rows(count, seed))]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_jsonl(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def tagged(count: int, seed: int = 0, longest: int = 14) -> list[dict[str, list[str]]]:
    """Of telling words, the first of a kind begins an entity, and the second goes on with it."""
    draw = random.Random(seed)
    rows = []
    told = {word: f"{'BI'[i]}-{kind}" for kind, words in TELLING.items() for i, word in enumerate(words)}
    for _ in range(count):
        words = draw.choices([*FILLER[:5], *told], k=1 + draw.randrange(longest))
        rows.append({"tokens": words, "tags": [told.get(word, "O") for word in words]})
    return rows


def write_tags(path: Path, rows: list[dict[str, list[str]]]) -> Path:
    """As CoNLL columns or JSON Lines, by the suffix."""
    if path.suffix == ".conll":
        lines = [[f"{w} _ {t}" for w, t in zip(*row.values(), strict=True)] for row in rows]
        path.write_text("-DOCSTART- -X- O\n\n" + "\n\n".join("\n".join(text) for text in lines) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def collection(
    folder: Path, seed: int = 0, queries: tuple[int, ...] = (48, 10, 10), documents: int = 90
) -> Path:
    """A folder in BEIR's layout: fillers find a document, and one that is bright answers."""
    draw = random.Random(seed)
    corpus = [
        draw.choices(FILLER[2:], k=draw.randint(3, 9)) + draw.choices(["bright", "bad", "dull"], k=1)
        for _ in range(documents)
    ]
    (folder / "qrels").mkdir(parents=True)
    rows = [
        {"_id": f"d{i}", "title": words[0], "text": " ".join(words[1:])} for i, words in enumerate(corpus)
    ]
    with gzip.open(folder / "corpus.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    asked = []
    for split, count in zip(("train", "dev", "test"), queries, strict=True):
        lines = ["query-id\tcorpus-id\tscore"]
        last = len(asked) + count
        while len(asked) < last:
            words = draw.sample(FILLER[2:], k=3)
            right = [i for i, text in enumerate(corpus) if "bright" in text and len({*words} & {*text}) > 1]
            if right:
                asked.append({"_id": f"q{len(asked)}", "text": " ".join(words)})
                lines += [f"{asked[-1]['_id']}\td{i}\t{1 + i % 2}" for i in right[:2]]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    write_jsonl(folder / "queries.jsonl", asked)
    return folder


def asked(count: int, seed: int = 0, longest: int = 20, impossible: float = 0.0) -> list[dict]:
    """Questions for one of two kinds of telling words, nested as SQuAD has them, a paragraph a row. The
    answer is two words; there is none in a share of the paragraphs."""
    draw = random.Random(seed)
    paragraphs = []
    for number in range(count):
        kinds = draw.sample(["neg", "pos"], 2)
        told = {k: f"{draw.choice(TELLING[k])} {'scene' if k == 'neg' else 'actor'}" for k in kinds}
        asked = kinds[0]
        if none := draw.random() < impossible:
            told.pop(asked)
        words = draw.choices(FILLER[:8], k=4 + draw.randrange(longest - 3))
        for phrase in told.values():
            words.insert(draw.randint(0, len(words)), phrase)
        context, question = " ".join(words), f"was the film {'dull' if asked == 'neg' else 'bright'}"
        answers = [] if none else [{"text": told[asked], "start": context.index(told[asked])}]
        qas = [{"id": f"q{number}", "question": question, "answers": answers, "impossible": none}]
        paragraphs.append({"title": "films", "context": context, "qas": qas})
    return paragraphs


def as_squad(paragraphs: list[dict]) -> dict:
    """What `asked` gives, as the official JSON has it."""
    official = [
        {
            "context": paragraph["context"],
            "qas": [
                {"id": asked["id"], "question": asked["question"], "is_impossible": asked["impossible"]}
                | {"answers": [{"text": x["text"], "answer_start": x["start"]} for x in asked["answers"]]}
                for asked in paragraph["qas"]
            ],
        }
        for paragraph in paragraphs
    ]
    return {"version": "v2.0", "data": [{"title": "films", "paragraphs": official}]}
