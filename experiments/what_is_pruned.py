"""What is pruned where: by kind of token, by position, by layer; and whether seeds agree on it.

    THRESHER_DATA=folder python experiments/what_is_pruned.py sst2 --budget 0.4 --seeds 0 1 2

Wants the models that quality_at_budget.py left in --work. Writes what_is_pruned-TASK to --results
and, from it, a figure beside that folder.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot
from scipy.stats import spearmanr

from results import get, put
from samples import data
from tasks import arguments, script
from thresher.batches import spread
from thresher.data import load_examples
from thresher.inference.load import open_model
from thresher.inference.predict import predict

TEXTS = 1000
TENTHS = 10
WORDS, SEEN = 16, 12  # words shown at either end, and how often a word must be seen to be
FUNCTION = frozenset(
    """a an the this that these those and or but nor so yet if then than as of at by for with about into
    through to from in on off over under up down out is am are was were be been being has have had do does did
    can could will would shall should may might i you he she it we they me him her us them my your his its
    our their who whom whose which what where when how there here s t re ve ll d m""".split()  # noqa: SIM905
)
KINDS = ("[CLS]", "[SEP]", "punctuation", "function words", "numbers", "pieces of words", "capitals", "words")


def kind(text: str, start: int, end: int, first: bool) -> str:
    """Of the token that stands for ``text[start:end]``; `first` if no token of its text stands before it."""
    token = text[start:end]
    if not any(c.isalnum() for c in token):
        return "punctuation"
    if token.isdigit():
        return "numbers"
    if start and text[start - 1].isalnum():
        return "pieces of words"  # all but the first
    if token.lower() in FUNCTION:
        return "function words"
    # At the start of a sentence a capital says nothing.
    opens = first or text[:start].rstrip()[-1:] in ".!?"
    return "capitals" if token[0].isupper() and not opens else "words"


def describe(encoder: Any, texts: Any) -> list[list[tuple[str, str]]]:
    """For each text its tokens as ``(kind, token)``."""
    found = []
    for row in texts:
        parts = [row["text"], *([row["text_pair"]] if "text_pair" in row else [])]
        encoded = encoder.tokenizer(
            *parts, truncation=True, max_length=encoder.max_length, return_offsets_mapping=True
        )
        tokens: list[tuple[str, str]] = []
        before = None
        for place, (owner, (start, end)) in enumerate(
            zip(encoded.sequence_ids(0), encoded["offset_mapping"], strict=True)
        ):
            if owner is None:
                tokens.append(("[SEP]" if place else "[CLS]", ""))
            else:
                text = parts[owner]
                tokens.append((kind(text, start, end, owner != before), text[start:end].lower()))
            before = owner
        found.append(tokens)
    return found


def survey(task: str, models: list[Path], work: Path) -> dict[str, Any]:
    """Shares alive after each layer, by kind and by tenth of the text; words; agreement between models."""
    files = data(task, work)
    everything = load_examples(files.eval, files.text, files.label)
    texts = everything.select(spread(len(everything), TEXTS))
    depths, tables = [], []
    for folder in models:
        model, encoder, _ = open_model(folder)
        layers = model.family.layers
        depths.append(
            np.concatenate(predict(model, encoder, encoder.encode_examples(texts), depths=True).depths)
        )
        tables.append(model.pruner.thresholds.tolist())
    described = describe(encoder, texts)
    kinds = np.array([name for tokens in described for name, _ in tokens])
    words = np.array([word for tokens in described for _, word in tokens])
    places = np.concatenate([np.arange(len(tokens)) * TENTHS // len(tokens) for tokens in described])
    whole = ~np.isin(kinds, ["[CLS]", "[SEP]"])

    def alive(some: np.ndarray) -> list[float]:
        """Share after each layer, mean over models."""
        return [float(np.mean([(depth[some] > layer).mean() for depth in depths])) for layer in range(layers)]

    middle = np.mean(depths, axis=0)
    by_word: dict[str, list[float]] = defaultdict(list)
    for word, name, depth in zip(words, kinds, middle, strict=True):
        if name in ("words", "capitals", "function words"):
            by_word[word].append(float(depth))
    often = [(word, mean(some), len(some)) for word, some in by_word.items() if len(some) >= SEEN]
    ranked = sorted(often, key=lambda item: (item[1], -item[2]))
    pairs = list(combinations(depths, 2))
    return {
        "task": task,
        "models": [folder.name for folder in models],
        "texts": len(texts),
        "tokens": len(kinds),
        "share_of_tokens": {name: float((kinds == name).mean()) for name in KINDS if (kinds == name).any()},
        "alive_by_kind": {name: alive(kinds == name) for name in KINDS if (kinds == name).any()},
        "alive_by_tenth": [alive((places == place) & whole) for place in range(TENTHS)],
        "kept_longest": [item[:2] for item in reversed(ranked[-WORDS:])],
        "dropped_first": [item[:2] for item in ranked[:WORDS]],
        "thresholds": tables,
        "alive_by_model": [[float((depth > layer).mean()) for layer in range(layers)] for depth in depths],
        # Of how deep tokens get, without those that are kept by rule.
        "rank_correlation": [float(spearmanr(a[whole], b[whole]).statistic) for a, b in pairs],
        "same_survivors": [
            [_overlap((a > layer)[whole], (b > layer)[whole]) for layer in range(layers)] for a, b in pairs
        ],
    }


def _overlap(one: np.ndarray, other: np.ndarray) -> float | None:
    """Share of what is alive in either that is alive in both; None where nothing is."""
    return float((one & other).sum() / either) if (either := (one | other).sum()) else None


def figure(found: dict[str, Any], file: Path) -> None:
    """Three panels: what kind of token is alive after which layer, where in the text, and which words."""
    canvas, (kinds, places, words) = pyplot.subplots(1, 3, figsize=(13, 4), width_ratios=[1.25, 1.25, 1])
    shares = found["alive_by_kind"]
    table = np.array(list(shares.values()))
    kinds.imshow(table, cmap="YlGnBu", vmin=0, vmax=1, aspect="auto")
    for (row, layer), share in np.ndenumerate(table):
        kinds.text(layer, row, f"{share:.0%}", ha="center", va="center", fontsize=8, color=_ink(share))
    labels = [f"{name} ({found['share_of_tokens'][name]:.0%})" for name in shares]
    kinds.set_yticks(range(len(shares)), labels, fontsize=8)
    table = np.array(found["alive_by_tenth"]).T
    places.imshow(table, cmap="YlGnBu", vmin=0, vmax=1, aspect="auto", origin="upper")
    for (layer, place), share in np.ndenumerate(table):
        places.text(place, layer, f"{share:.0%}", ha="center", va="center", fontsize=7, color=_ink(share))
    places.set(title="alive, by tenth of the text", xlabel="from its start to its end", ylabel="after layer")
    places.set_yticks(range(len(table)), range(1, len(table) + 1))
    places.set_xticks([])
    layers = len(next(iter(shares.values())))
    kinds.set(title="alive, by kind of token (share of all)", xlabel="after layer")
    kinds.set_xticks(range(layers), range(1, layers + 1))
    words.axis("off")
    words.set(title="words: layers survived, mean", xlim=(0, 1), ylim=(-WORDS, 0.5))
    for column, (key, colour) in enumerate((("kept_longest", "#0b5c6b"), ("dropped_first", "#a0682a"))):
        for row, (word, depth) in enumerate(found[key]):
            words.text(column * 0.55, -row, word, fontsize=9, color=colour)
            words.text(column * 0.55 + 0.42, -row, f"{depth:.1f}", fontsize=8, color="grey", ha="right")
    canvas.tight_layout()
    canvas.savefig(file, dpi=150)


def _ink(share: float) -> str:
    return "white" if share > 0.6 else "#222222"


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--method", default="ours")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=0.4)
    given = parser.parse_args(argv)
    models = [given.work / f"{given.task}-{given.method}-{given.budget:g}-seed{seed}" for seed in given.seeds]
    if absent := [str(model) for model in models if not (model / "config.json").exists()]:
        raise SystemExit(f"Run quality_at_budget.py first: there is no {', '.join(absent)}.")
    run = f"what_is_pruned-{given.task}"
    put(given.results, run, survey(given.task, models, given.work))
    found = get(given.results, run)
    figure(found, file := given.results.parent / f"what_is_pruned-{given.task}.png")
    for name, shares in found["alive_by_kind"].items():
        print(f"{name:16}", " ".join(f"{share:4.0%}" for share in shares))
    print("rank correlation between seeds:", [round(value, 3) for value in found["rank_correlation"]])
    print(file)


if __name__ == "__main__":
    script(main)
