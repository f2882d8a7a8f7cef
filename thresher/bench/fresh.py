"""What a fresh process tells of a contender: how soon it answers, how much it holds, how much it takes.

A process of its own imports what its contender needs and nothing else, so nothing slow is imported above.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thresher.memory import peak_above, resident

if TYPE_CHECKING:
    from thresher.bench.contenders import Contender
    from thresher.bench.rivals import Runner, Setup

log = logging.getLogger(__name__)


def in_fresh_process(
    contender: Contender, setup: Setup, source: str, texts: dict[str, Any]
) -> dict[str, float]:
    """Run a contender in a process of its own, from what lies converted in the work folder.

    Parameters
    ----------
    contender : Contender
    setup : Setup
    source : str
        File or hub data set.
    texts : dict
        Of it: the names of `columns`; `chosen` rows, and the `first` of them to be answered; texts in a
        `batch`; tokens at most, `max_length`.

    Returns
    -------
    dict of str to float
        ``cold_seconds``, from the start of the process to the answer to one text; ``resident_mb``, what is in
        memory then; ``peak_mb``, how much more is while all texts are run, on the device. Memory is in MiB.
        What was not to be had is left out.
    """
    task = {
        "contender": asdict(contender),
        "ours": contender.ours,
        "folder": str(setup.folder),
        "work": str(setup.work),
        "threads": setup.threads,
        "budget": setup.budget,
        "device": setup.device,
        "inputs": list(setup.examples[0]),
        "source": source,
        **texts,
        "started": time.time(),
    }
    command = [sys.executable, "-m", "thresher.bench.fresh"]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True)
    found: dict[str, float] = {}
    for line in done.stdout.splitlines():
        if line.startswith('{"'):  # what a library says is passed over
            found |= json.loads(line)
    if "peak_mb" not in found:
        why = done.stderr.strip().rpartition("\n")[2]
        log.warning("A fresh process of %s, %s, failed: %s", contender.name, contender.precision, why)
    return found


def _child(task: dict[str, Any]) -> None:
    run = _ours(task) if task["ours"] else _rival(task)
    run(_encoded(task))
    print(json.dumps({"cold_seconds": time.time() - task["started"]}))
    print(json.dumps({"resident_mb": resident()}))
    batches = _batches(task)
    print(json.dumps({"peak_mb": peak_above(lambda: [run(rows) for rows in batches], task["device"])}))


def _rival(task: dict[str, Any]) -> Runner:
    from thresher.bench.rivals import Setup, quiet

    setup = Setup(task["folder"], [], {}, task["threads"], Path(task["work"]), device=task["device"])
    with quiet():
        load = import_module(f"thresher.bench.rivals.{task['contender']['engine']}").load
        runner: Runner = load(setup, task["contender"]["precision"])
    return runner


def _ours(task: dict[str, Any]) -> Runner:
    import torch

    from thresher.bench.rivals import logits_of, on
    from thresher.model import PrunedModel

    torch.set_num_threads(task["threads"])
    contender, device = task["contender"], task["device"]
    dense, engine, precision = contender["kind"] == "packed", contender["engine"], contender["precision"]
    model = PrunedModel.from_pretrained(task["folder"]).to(device).for_inference(precision, engine)
    if task["budget"] is not None:
        model.set_budget(task["budget"])

    @torch.inference_mode()
    def run(batch: dict[str, Any]) -> Any:
        return logits_of(model(**on(device, batch), dense=dense)).cpu()

    model.engine.calibrate(lambda: run(_encoded(task)))
    return run


def _encoded(task: dict[str, Any]) -> dict[str, np.ndarray]:
    """The first text, by the library that all tokenizers rest on."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(task["folder"], "tokenizer.json")))
    tokenizer.enable_truncation(task["max_length"])
    tokenizer.no_padding()
    found = tokenizer.encode(*task["first"])
    rows = {"input_ids": found.ids, "attention_mask": found.attention_mask, "token_type_ids": found.type_ids}
    return {name: np.array([rows[name]]) for name in task["inputs"]}


def _batches(task: dict[str, Any]) -> list[dict[str, Any]]:
    """All texts, as the contender was timed on them."""
    from thresher.bench.contenders import Contender, Texts
    from thresher.data import load_examples
    from thresher.inference.load import open_model

    _, encoder, _ = open_model(task["folder"], task["max_length"])
    examples = load_examples(task["source"], task["columns"], split="test").select(task["chosen"])
    texts = Texts(encoder, examples, task["batch"])
    return [rows for _, rows in texts.batches(Contender(**task["contender"]))]


if __name__ == "__main__":
    _child(json.load(sys.stdin))
