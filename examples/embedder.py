"""An embedder that drops tokens: any sentence-transformers encoder is pruned on texts without labels.

    python examples/embedder.py TRAIN PAIRS [ENCODER]

TRAIN is a table of sentences in the columns `sentence1` and `sentence2`, from which the pruned encoder learns
the vectors of ENCODER. Both files have a third column, `score`, against which vectors are measured: STS-B's
train.tsv and dev.tsv will do. ENCODER is a folder that sentence-transformers wrote, or its name on the hub.
Two cores take some 10 minutes; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich import print
from sentence_transformers import SentenceTransformer

from thresher import PruningConfig
from thresher.show.progress import stages
from thresher.show.tables import training_table
from thresher.training import Data, Job, TrainingSettings, prune

QUERY = "How do I bake bread?"
TEXTS = ["Mix flour, water and yeast, and heat the oven.", "The train to Paris leaves at noon."]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", metavar="TRAIN")
    parser.add_argument("pairs", metavar="PAIRS")
    parser.add_argument("encoder", nargs="?", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, default=Path("runs/embedder"))
    parser.add_argument("--budget", type=float, default=0.5, help="share of the FLOPs to keep")
    parser.add_argument("--epochs", type=float, default=4.0)
    given = parser.parse_args()

    data = Data(given.train, ["sentence1", "sentence2"], eval=given.pairs, label="score")
    settings = TrainingSettings(
        budget=given.budget,
        soft_epochs=given.epochs / 4,
        hard_epochs=given.epochs * 3 / 4,
        learning_rate=1e-4,
    )
    job = Job(given.encoder, data, given.out, settings)
    with stages() as stage:
        report = prune(job.go_on(), PruningConfig(), stage)
    print(training_table(report))

    # The folder opens as it did before; by default dense, and pruned by the line that Thresher added.
    model = SentenceTransformer(str(given.out), trust_remote_code=True)
    for text, near in zip(TEXTS, model.similarity(model.encode(QUERY), model.encode(TEXTS))[0], strict=True):
        print(f"{near:.2f}  {text}")


if __name__ == "__main__":
    main()
