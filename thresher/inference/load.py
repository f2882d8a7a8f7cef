"""A saved model, ready to run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from thresher.engines import AUTO
from thresher.errors import UserError
from thresher.folders.read import naming, one_save
from thresher.inference.predict import predict
from thresher.inputs.text import TextEncoder, load_tokenizer
from thresher.model import PrunedModel
from thresher.tasks import Task, task_on

log = logging.getLogger(__name__)
CALIBRATION = 256  # texts


@one_save
def open_model(
    folder: str | Path,
    max_length: int | None = None,
    budget: float | None = None,
    source: str | None = None,
) -> tuple[PrunedModel, TextEncoder, Task]:
    """A saved pruned model, at a budget that it holds, with its tokenizer, which cuts texts as in training or
    as given, and its task on the data of `source`."""
    model = PrunedModel.from_pretrained(folder)
    if budget is not None:
        model.set_budget(budget)
    with naming(folder):
        asked = model.metadata.get("max_length") if max_length is None else max_length
        limit = model.family.length_limit(asked)
        task = task_on(model.config, source, remembered=model.metadata.get("metric"))
        return model, encoder_for(task, load_tokenizer(folder, model.family), limit), task


def encoder_for(task: Task, tokenizer: Any, max_length: int) -> TextEncoder:
    """What turns texts into token ids as a task wants them."""
    return TextEncoder(tokenizer, max_length, task.apart, task.within)


def make_ready(
    model: PrunedModel, encoder: TextEncoder, columns: Any, precision: str = "fp32", engine: str = AUTO
) -> PrunedModel:
    """Make a model ready for inference; encoded texts `columns` show an engine what inputs look like."""
    some = {key: columns[key][:CALIBRATION] for key in ("input_ids", "token_type_ids") if key in columns}
    model.for_inference(precision, engine)
    model.engine.calibrate(lambda: predict(model, encoder, some))
    return model


def text_columns(model: PrunedModel, given: list[str]) -> list[str]:
    """The columns asked for, else those the model was trained on."""
    columns = list(given or model.metadata.get("text") or [])
    if not columns:
        raise UserError("This folder does not say which column holds the text: name it in `text`.")
    return columns


def warn_if_other_number(model: PrunedModel, columns: list[str]) -> None:
    """Say where a model for single texts is given pairs, or the other way round."""
    trained = model.metadata.get("text") or columns
    if len(trained) != len(columns):
        log.warning(
            "The model was trained on %s, and runs on %s: what it answers to these may mean little.",
            " and ".join(map(repr, trained)),
            " and ".join(map(repr, columns)),
        )
