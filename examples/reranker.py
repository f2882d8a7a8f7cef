"""A reranker that drops tokens: an encoder learns to rank answers to health questions, and is pruned.

    python examples/reranker.py FOLDER [ENCODER]

FOLDER has the layout of BEIR: corpus.jsonl.gz, queries.jsonl.gz, and in qrels/ train.tsv and dev.tsv, as of
MedQuAD. Candidates are those that BM25 finds (pip install 'thresher[retrieval]'). ENCODER is a folder, or a
name on the Hugging Face hub. All of MedQuAD takes two cores some hours; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich import print
from sentence_transformers import CrossEncoder

from thresher import PruningConfig
from thresher.show.progress import stages
from thresher.show.tables import training_table
from thresher.training import Data, Job, TrainingSettings, finetune, prune

QUERY = "What are the symptoms of anemia?"
PASSAGES = [
    "Anemia is treated with iron, taken by mouth.",
    "Signs of anemia are tiredness, pale skin and shortness of breath.",
    "Signs of measles are fever and a rash.",
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("encoder", nargs="?", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, default=Path("runs/reranker"))
    parser.add_argument("--budget", type=float, default=0.35, help="share of the FLOPs to keep")
    parser.add_argument("--epochs", type=float, default=1.0, help="of fine-tuning, and again of pruning")
    parser.add_argument("--max-length", type=int, default=128, help="most tokens of a question and an answer")
    given = parser.parse_args()

    data = Data(f"{given.folder}:train", [], held_out=f"{given.folder}:dev")
    dense, pruned = given.out / "dense", given.out / "pruned"

    tuning = TrainingSettings(hard_epochs=given.epochs, learning_rate=2e-4)
    with stages() as stage:
        finetune(Job(given.encoder, data, dense, tuning, given.max_length).go_on(), stage=stage)

    pruning = TrainingSettings(
        budget=given.budget,
        soft_epochs=given.epochs / 4,
        hard_epochs=given.epochs * 3 / 4,
        learning_rate=1e-4,
    )
    with stages() as stage:
        job = Job(str(dense), data, pruned, pruning, given.max_length)
        report = prune(job.go_on(), PruningConfig(), stage)
    print(training_table(report))  # of the 20 best of BM25; `thresher evaluate` measures on the 100 best

    # Only what Thresher wrote is run by trust_remote_code; without it, the same folder opens dense.
    model = CrossEncoder(str(pruned), trust_remote_code=True)
    for found in model.rank(QUERY, PASSAGES):
        print(f"{found['score']:.2f}  {PASSAGES[found['corpus_id']]}")


if __name__ == "__main__":
    main()
