"""An entity tagger that drops tokens: an encoder is fine-tuned on BC5CDR and pruned, and marks a sentence.

    python examples/tagger.py DATA [ENCODER]

DATA is a folder with train.jsonl.gz, dev.jsonl.gz and test.jsonl.gz, whose rows hold `tokens` and `tags`:
BC5CDR (chemicals and diseases in abstracts), or entities of your own. ENCODER is a folder or a name on the
Hugging Face hub. Two cores take some 20 minutes; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich import print
from transformers import AutoTokenizer, pipeline

from thresher import PrunedModel, PruningConfig
from thresher.show.progress import stages
from thresher.show.tables import training_table
from thresher.training import Data, Job, TrainingSettings, finetune, prune

SENTENCE = "Naloxone reverses the antihypertensive effect of clonidine in rats with renal failure ."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("encoder", nargs="?", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, default=Path("runs/tagger"))
    parser.add_argument("--budget", type=float, default=0.6, help="share of the FLOPs to keep")
    parser.add_argument("--epochs", type=float, default=8.0, help="of fine-tuning; pruning has half as many")
    given = parser.parse_args()

    train, dev, test = (str(given.data / f"{name}.jsonl.gz") for name in ("train", "dev", "test"))
    data = Data(train, ["tokens"], eval=test, label="tags", held_out=dev)
    dense, pruned = given.out / "dense", given.out / "pruned"

    tuning = TrainingSettings(hard_epochs=given.epochs, learning_rate=3e-4)
    with stages() as stage:
        finetune(Job(given.encoder, data, dense, tuning).go_on(), stage=stage)

    pruning = TrainingSettings(
        budget=given.budget,
        soft_epochs=given.epochs / 8,
        hard_epochs=given.epochs * 3 / 8,
        learning_rate=1e-4,
    )
    with stages() as stage:
        report = prune(Job(str(dense), data, pruned, pruning).go_on(), PruningConfig(), stage)
    print(training_table(report))

    model = PrunedModel.from_pretrained(pruned, precision="fp32")
    tokenizer = AutoTokenizer.from_pretrained(pruned)
    tagger = pipeline("token-classification", model, tokenizer=tokenizer, aggregation_strategy="simple")
    for entity in tagger(SENTENCE):
        print(f"{entity['word']}: {entity['entity_group']} ({entity['score']:.2f})")


if __name__ == "__main__":
    main()
