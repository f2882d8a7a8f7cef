"""A model of any BERT shape with random weights, pruned to a budget: for speed, where quality is not asked.

    python benchmarks/random_model.py --layers 12 --width 768 --eval texts.tsv --text sentence --out base

The tokenizer is that of the extra `demo`. Thresholds rise from layer to layer, and are fitted so that the
asked share of the FLOPs remains on the texts given.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from thresher import PruningConfig, prune
from thresher.batches import spread
from thresher.data import load_examples
from thresher.demo.run import encoder_folder
from thresher.inference.predict import predict
from thresher.inputs.text import TextEncoder, load_tokenizer
from thresher.training.fit import fit_budget

TEXTS = 64  # that thresholds are fitted on


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--eval", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--max-length", type=int, default=384)
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--device", default="cpu", help="where thresholds are fitted: cpu, or cuda")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    tokenizer = load_tokenizer(encoder_folder())
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=given.width,
        num_hidden_layers=given.layers,
        num_attention_heads=given.width // 64,
        intermediate_size=4 * given.width,
    )
    dense = BertForSequenceClassification(config).eval()
    with torch.no_grad():  # a fresh model attends to everything alike
        for layer in dense.bert.encoder.layer:
            for linear in (layer.attention.self.query, layer.attention.self.key):
                linear.weight.normal_(std=1.4 * given.width**-0.5)
    model = prune(dense, PruningConfig("threshold", prefix_only_at_end=True)).to(given.device)
    encoder = TextEncoder(tokenizer, given.max_length)
    examples = load_examples(given.eval, [given.text])
    rows = encoder.encode_examples(examples.select(spread(len(examples), TEXTS)))
    model.pruner.thresholds.copy_(torch.linspace(0.2, 1.0, given.layers))
    ratio = fit_budget(model.pruner, lambda: predict(model, encoder, rows).flops_ratio or 1.0, given.budget)
    model.metadata = {"text": [given.text], "max_length": given.max_length}
    model.save_pretrained(given.out)
    tokenizer.save_pretrained(given.out)
    print(f"{given.out}: FLOPs ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
