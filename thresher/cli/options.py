"""Arguments and options that several commands have. Settings of training are in `settings.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thresher.cli.values import folder

# Of training, and of what it writes

Model = Annotated[
    str, typer.Argument(help="Folder of a transformers model, or the model's name on the Hugging Face hub.")
]
Train = Annotated[
    str,
    typer.Option(
        help="Training texts: .tsv, .csv, .jsonl, .json of SQuAD (also .gz), .parquet, a hub data set, "
        "NAME:SPLIT, or, for rerankers and embedders, a folder in BEIR's layout, FOLDER:SPLIT."
    ),
]
Eval = Annotated[
    str | None,
    typer.Option(
        "--eval",
        help="Texts to report quality on; prune meets its budget on texts as long as these. Default: the "
        "texts of --held-out, else a tenth of --train.",
    ),
]
HeldOut = Annotated[
    str | None,
    typer.Option(
        help="Texts that choose the checkpoint and the thresholds; best are texts that the model has not "
        "learned from. Default: a tenth of --train. At most 1,000 texts choose; a drop is measured on up to "
        "4,000, or on more if the texts are short.",
    ),
]
Text = Annotated[
    list[str] | None,
    typer.Option(
        help="Column with the text. For pairs of texts, give the option twice, or write both columns with a "
        "comma between them, a query before its passage, a question before its context. A folder in BEIR's "
        "layout needs none."
    ),
]
LabelMap = Annotated[
    list[str] | None,
    typer.Option(
        help="FROM=TO: a label of the files, and the class that the label stands for, as 1=pos. May be "
        "repeated. A JSON file of such pairs will also do."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder to write.", parser=folder, metavar="DIRECTORY")]
MaxLength = Annotated[
    int | None,
    typer.Option(help="Most tokens of a text; the rest is cut off. Default: what the model allows."),
]
Force = Annotated[bool, typer.Option("--force", help="Write over what is there.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where an interrupted run stopped, or begin if there is none.")
]

# Of a pruned model that runs

Folder = Annotated[
    str, typer.Argument(help="Folder of a pruned model, or the model's name on the Hugging Face hub.")
]
Measured = Annotated[
    str,
    typer.Option(
        "--eval",
        help="Texts to measure on: a file, a hub data set, or for rerankers and embedders a folder in BEIR's "
        "layout, FOLDER:SPLIT.",
    ),
]
KnownText = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        help="Column with the text, as for prune. Default: the columns that the model was trained on.",
    ),
]
RunLength = Annotated[
    int | None,
    typer.Option("--max-length", help="Most tokens of a text; the rest is cut off. Default: as in training."),
]
AtBudget = Annotated[
    float | None,
    typer.Option(help="Budget to run at, of a model that holds several. Default: the first of them."),
]
RunPrecision = Annotated[str, typer.Option("--precision", help="Numbers to run in: fp32, bf16 or int8.")]
METHODS = "threshold, topk, random, none"  # pruners
ENGINES = "auto, torch, native, openvino"
Engine = Annotated[str, typer.Option(help=f"What runs the layers, one of: {ENGINES}.")]
