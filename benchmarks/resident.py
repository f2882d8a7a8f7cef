"""Resident size of a process that answers batches of random lengths for some minutes, minute by minute.

    python benchmarks/resident.py runs/imdb-model --minutes 10

The model runs in every precision in turn, pruned and dense. What the last minute holds above the first is
memory that is never given back.
"""

from __future__ import annotations

import argparse
import time

import torch

from thresher import PrunedModel, native
from thresher.memory import resident


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a pruned folder")
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--precision", default="fp32,bf16,int8", help="which, with commas")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32, help="texts of the largest batch")
    given = parser.parse_args()
    models = [PrunedModel.from_pretrained(given.model, x) for x in given.precision.split(",")]
    draw = torch.Generator().manual_seed(0)
    print(f"{native.instructions}, {torch.get_num_threads()} threads")
    count = 0
    for minute in range(1, given.minutes + 1):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            shape = [
                int(torch.randint(1, most + 1, (), generator=draw))
                for most in (given.batch, given.max_length)
            ]
            lengths = torch.randint(1, shape[1] + 1, (shape[0], 1), generator=draw)
            ids = torch.randint(5, models[0].model.config.vocab_size, shape, generator=draw)
            mask = (torch.arange(shape[1]) < lengths).long()
            with torch.inference_mode():
                models[count % len(models)](input_ids=ids, attention_mask=mask, dense=count % 7 == 0)
            count += 1
        print(f"minute {minute}: {resident():,.0f} MiB after {count:,} batches", flush=True)


if __name__ == "__main__":
    main()
