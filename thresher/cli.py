"""The command line: parse, call, print. No logic."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text as Styled

from thresher.errors import TrainingDiverged, UserError, one_line
from thresher.inference.progress import Stages
from thresher.show.progress import err, stages
from thresher.show.wording import printable
from thresher.version import __version__

app = typer.Typer(
    help="Make transformer encoders faster: learn which tokens can be dropped, and run without them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
WIDE = 120  # columns that the widest tables need
# What users named is printed as it is, not as markup.
console = Console(markup=False, emoji=False)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = WIDE  # a log or a pipe


def _command(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose errors end in a message and an exit code."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            _prepare()
            function(*args, **kwargs)
        except UserError as error:
            raise _ends("Error:", "red", error, 2) from error
        except KeyboardInterrupt as error:
            hint = str(error)
            if function.__name__ == "demo":
                hint += " Run the demo again to go on."
            elif function.__name__ in ("finetune", "prune"):
                hint += " Run the same command with --resume to go on from the last checkpoint."
            raise _ends("Interrupted.", "yellow", hint, 130) from error
        except TrainingDiverged as error:
            raise _ends("Failed:", "red", error, 1) from error
        except _CannotPrint:
            raise
        except OSError as error:
            where = "" if error.filename is None else f"{error.filename}: "
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
            hint = " Make room, or write elsewhere; what was finished before is there." if full else ""
            raise _ends("Error:", "red", f"{where}{one_line(error)}.{hint}", 2) from error

    return app.command()(run)


def _ends(what: str, colour: str, message: object, code: int) -> typer.Exit:
    """Say why a command ends."""
    err.print(Styled.assemble((what, f"bold {colour}"), f" {printable(str(message))}"), soft_wrap=True)
    return typer.Exit(code)


class _CannotPrint(OSError):
    """The output stream is full, or its reader is gone."""


@contextmanager
def _printing() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        raise _CannotPrint(error.errno, error.strerror) from error


def _prepare() -> None:
    """Our own words only, in what the terminal can show: transformers' load reports and bars say nothing that
    a user can act on."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    handler = RichHandler(console=err, show_path=False, show_time=False, markup=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    # Read where the libraries are imported, which takes seconds: they need not be imported for this.
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY", "DATASETS_VERBOSITY"):
        os.environ.setdefault(name, "error")


def _version(wanted: bool) -> None:
    if wanted:
        try:
            from thresher import native
        except UserError as error:
            raise _ends("Error:", "red", error, 2) from error

        route = f"native, {native.instructions}" if native.instructions else "plain, by torch"
        _say(f"thresher {__version__} (attention: {route})")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version, and how attention runs."
        ),
    ] = False,
) -> None:
    pass


Model = Annotated[str, typer.Argument(help="Folder of a transformers model, or its Hugging Face hub name.")]
Folder = Annotated[str, typer.Argument(help="Folder that `thresher prune` wrote, or its hub name.")]
Train = Annotated[
    str,
    typer.Option(
        help="Training texts: .tsv, .csv, .jsonl (also .gz), .parquet, or a hub data set, NAME:SPLIT."
    ),
]
Eval = Annotated[
    str | None,
    typer.Option(
        "--eval",
        help="Texts to report quality on; a budget is meant for texts as long as these. Default: those of "
        "--held-out, else a tenth of --train.",
    ),
]
HeldOut = Annotated[
    str | None,
    typer.Option(
        help="Texts to choose checkpoint and thresholds on, best those that the model has not learned from. "
        "Default: a tenth of --train. At most 1,000 are used, or with --max-drop 4,000 (more if short).",
    ),
]
Text = Annotated[
    list[str],
    typer.Option(help="Column with the text. Of pairs both: two options, or one with a comma between them."),
]
KnownText = Annotated[
    list[str] | None,
    typer.Option("--text", help="As for prune. Default: the columns the model was trained on."),
]
LabelMap = Annotated[
    list[str] | None,
    typer.Option(
        help="FROM=TO: a label of the files and the class that it stands for, as 1=pos; may be repeated. "
        "Or a JSON file of such pairs."
    ),
]
TaskKind = Annotated[
    str | None,
    typer.Option(
        help="single-label, multi-label or regression. Default: lists of labels are multi-label, numbers "
        "that are not all whole regression, all else single-label."
    ),
]


def _folder(name: str | Path) -> Path:
    """A folder to write; an empty name, as of a variable that is not set, would be the working directory."""
    if not str(name).strip():
        raise typer.BadParameter("it is empty; name a folder.")
    if (path := Path(name)).exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file; name a folder.")
    return path


Out = Annotated[Path, typer.Option(help="Folder to write.", parser=_folder, metavar="DIRECTORY")]
AtBudget = Annotated[
    float | None, typer.Option("--at-budget", help="Which of its budgets, of a model that holds several.")
]
RunLength = Annotated[int | None, typer.Option(help="Most tokens of a text. Default: as in training.")]
MaxLength = Annotated[int | None, typer.Option(help="Most tokens of a text. Default: what the model allows.")]
Batch = Annotated[int, typer.Option("--batch-size", help="Texts in a forward pass.")]
Accumulation = Annotated[int, typer.Option(help="Forward passes in a step.")]
Rate = Annotated[float, typer.Option("--learning-rate", help="Learning rate of the weights.")]
Decay = Annotated[float, typer.Option("--weight-decay", help="Weight decay.")]
Warmup = Annotated[float, typer.Option(help="Share of the steps over which the learning rate rises.")]
Evaluations = Annotated[int, typer.Option(help="Checkpoints measured on the way; the best is taken.")]
Dropout = Annotated[
    bool | None,
    typer.Option(help="The model's dropout, twice as slow on CPUs. Default: finetune with, prune without."),
]
Metric = Annotated[
    str | None,
    typer.Option(
        help="What quality is: accuracy (the default) or macro_f1, which does not overlook rare classes; of "
        "several labels micro_f1 (default), macro_f1 or exact_match; of scores pearson (default) or "
        "spearman. A pruned folder remembers it, a dense one does not."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Precision = Annotated[str, typer.Option(help="auto, fp32 or bf16, for training.")]
RunPrecision = Annotated[str, typer.Option("--precision", help="fp32, bf16 or int8.")]
Engine = Annotated[str, typer.Option(help="Who runs the layers: torch or openvino.")]
Force = Annotated[bool, typer.Option("--force", help="Write over what is there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped, or begin.")]


@_command
def finetune(
    model: Model,
    train: Train,
    text: Text,
    label: Annotated[str, typer.Option(help="Label column.")],
    out: Out,
    eval_: Eval = None,
    held_out: HeldOut = None,
    task: TaskKind = None,
    label_map: LabelMap = None,
    epochs: Annotated[float, typer.Option(help="Passes over the training texts.")] = 3.0,
    learning_rate: Rate = 5e-5,
    batch_size: Batch = 32,
    accumulation: Accumulation = 1,
    weight_decay: Decay = 0.01,
    warmup: Warmup = 0.05,
    evaluations: Evaluations = 6,
    metric: Metric = None,
    dropout: Dropout = None,
    max_length: MaxLength = None,
    seed: Seed = 42,
    precision: Precision = "auto",
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Train a dense classifier or scorer from an encoder: the base to prune."""
    with _stages() as stage:
        from thresher.show.tables import training_table
        from thresher.training import Data, Job, TrainingSettings
        from thresher.training.recipes import finetune as run

        settings = TrainingSettings(
            hard_epochs=epochs,
            soft_epochs=0.0,
            learning_rate=learning_rate,
            batch_size=batch_size,
            accumulation=accumulation,
            weight_decay=weight_decay,
            warmup=warmup,
            evaluations=evaluations,
            metric=metric,
            dropout=dropout,
            seed=seed,
            precision=precision,
        )
        data = Data(train, text, eval_, label, held_out, _pairs(label_map))
        report = run(Job(model, data, out, settings, max_length, force, resume), task, stage)
    _print(training_table(report))
    _wrote(out)


@_command
def prune(
    model: Model,
    train: Train,
    text: Text,
    out: Out,
    eval_: Eval = None,
    held_out: HeldOut = None,
    label: Annotated[
        str | None, typer.Option(help="Label column. Without: learn to reproduce the model's own outputs.")
    ] = None,
    label_map: LabelMap = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Wanted FLOPs as a share of the unpruned model's; several with commas, for one model that "
            "runs at each. Default: 0.5."
        ),
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            help="No budget, but the quality that may be lost, as 1%: the cheapest model within it."
        ),
    ] = None,
    regularizer: Annotated[
        float | None,
        typer.Option(
            help="The paper's lambda: train without a budget, with this weight of the mean gate in the loss. "
            "The larger it is, the more is pruned."
        ),
    ] = None,
    pruner: Annotated[str, typer.Option(help="threshold, topk, random or none.")] = "threshold",
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="Option of the method, NAME=VALUE; may be repeated. Of threshold: score, gate, "
            "normalization, learned; of topk and random: dense_layers, slope."
        ),
    ] = None,
    soft_epochs: Annotated[float, typer.Option(help="Passes that learn thresholds, with gates.")] = 1.0,
    hard_epochs: Annotated[float, typer.Option(help="Passes that recover quality, with real drops.")] = 1.0,
    learning_rate: Rate = 5e-5,
    threshold_learning_rate: Annotated[float, typer.Option(help="Learning rate of the thresholds.")] = 0.02,
    score_learning_rate: Annotated[float, typer.Option(help="Learning rate of learned scores.")] = 5e-4,
    distill: Annotated[
        float, typer.Option(help="Share of the loss on base's outputs, the rest on labels.")
    ] = 0.9,
    distill_hidden: Annotated[
        float, typer.Option(help="Weight of the loss on base's hidden states; 0 saves memory and time.")
    ] = 0.2,
    saliency: Annotated[
        bool, typer.Option(help="Start learned scores from what foretells the gradient of base's outputs.")
    ] = True,
    dropout: Dropout = None,
    batch_size: Batch = 32,
    accumulation: Accumulation = 1,
    weight_decay: Decay = 0.01,
    warmup: Warmup = 0.05,
    evaluations: Evaluations = 6,
    metric: Metric = None,
    max_length: MaxLength = None,
    seed: Seed = 42,
    precision: Precision = "auto",
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Learn which tokens a fine-tuned model can drop."""
    named = {"--budget": budget, "--max-drop": max_drop, "--regularizer": regularizer}
    if len(given := [option for option, value in named.items() if value is not None]) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other: name one of them.")
    with _stages() as stage:
        from thresher.config import PruningConfig
        from thresher.pruners import PRUNERS
        from thresher.show.tables import training_table
        from thresher.training import Data, Job, TrainingSettings
        from thresher.training.recipes import prune as run

        if budget is not None and pruner in PRUNERS and not PRUNERS[pruner].adjustable:
            raise UserError(f"Pruner '{pruner}' always prunes the same: it takes no --budget.")
        settings = TrainingSettings(
            soft_epochs=soft_epochs,
            hard_epochs=hard_epochs,
            budget=_budgets("0.5" if budget is None else budget)
            if max_drop is None and regularizer is None
            else None,
            max_drop=None if max_drop is None else _points(max_drop),
            regularizer=regularizer or 0.0,
            learning_rate=learning_rate,
            threshold_learning_rate=threshold_learning_rate,
            score_learning_rate=score_learning_rate,
            distill=distill,
            distill_hidden=distill_hidden,
            saliency=saliency,
            dropout=dropout,
            batch_size=batch_size,
            accumulation=accumulation,
            weight_decay=weight_decay,
            warmup=warmup,
            evaluations=evaluations,
            metric=metric,
            seed=seed,
            precision=precision,
        )
        data = Data(train, text, eval_, label, held_out, _pairs(label_map))
        report = run(
            Job(model, data, out, settings, max_length, force, resume),
            PruningConfig(pruner, _options(option or [])),
            stage,
        )
    _print(training_table(report))
    _wrote(out)


@_command
def calibrate(
    model: Model,
    data: Annotated[
        str, typer.Option("--data", help="Texts like those the model will meet; not those it learned from.")
    ],
    text: Text,
    out: Out,
    max_change: Annotated[
        str, typer.Option(help="Most decisions that may change; for scores, 1 less Pearson's r.")
    ] = "1%",
    max_length: MaxLength = None,
    seed: Seed = 42,
    force: Force = False,
) -> None:
    """Prune without any training, in minutes: outputs stay within a bound of the model's own."""
    share = _share(max_change, "--max-change")
    with _stages() as stage:
        from thresher.show.tables import calibration_table
        from thresher.training import Data, Job, TrainingSettings
        from thresher.training.calibrate import calibrate as run

        job = Job(model, Data(data, text), out, TrainingSettings(seed=seed), max_length, force)
        report = run(job, share, stage)
    _print(calibration_table(report))
    _wrote(out)


@_command
def evaluate(
    folder: Folder,
    eval_: Annotated[str, typer.Option("--eval", help="Texts to measure on.")],
    text: KnownText = None,
    label: Annotated[
        str | None, typer.Option(help="Label column. Without: agreement with the dense model.")
    ] = None,
    label_map: LabelMap = None,
    json: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write the report here. Default: FOLDER/evaluation.json."),
    ] = None,
    precision: RunPrecision = "fp32",
    engine: Engine = "torch",
    max_length: RunLength = None,
    at_budget: AtBudget = None,
    speed: Annotated[bool, typer.Option(help="Time transformers and the pruned model.")] = True,
) -> None:
    """Quality of pruned, dense and base (as `prune` noted it); FLOPs; tokens kept; texts per second."""
    from thresher.files.lock import sole_writer

    with sole_writer(file := json or _home(folder) / "evaluation.json"):
        with _stages() as stage:
            from thresher.inference.evaluate import evaluate as run
            from thresher.show.tables import evaluation_table

            report = run(
                folder,
                eval_,
                text or [],
                label,
                precision=precision,
                engine=engine,
                max_length=max_length,
                budget=at_budget,
                speed=speed,
                label_map=_pairs(label_map),
                stage=stage,
            )
        _print(evaluation_table(report))
        report.write(file)
    _say(f"Report: {file}")


@_command
def bench(
    folder: Folder,
    eval_: Annotated[str, typer.Option("--eval", help="Texts to run.")],
    text: KnownText = None,
    label: Annotated[str | None, typer.Option(help="Label column, to report quality as well.")] = None,
    label_map: LabelMap = None,
    precision: Annotated[str, typer.Option(help="One or more of fp32, bf16, int8, with commas.")] = "fp32",
    engine: Annotated[str, typer.Option(help="Our engines: torch, openvino.")] = "torch,openvino",
    max_length: RunLength = None,
    at_budget: AtBudget = None,
    batch_size: Annotated[int, typer.Option(help="Texts in a batch.")] = 32,
    texts: Annotated[int, typer.Option(help="Most texts, spread over the file.")] = 512,
    repeats: Annotated[int, typer.Option(help="Rounds; every engine runs in each of them.")] = 5,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, in fresh processes.")] = True,
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time goes.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for bench.json and bench.png.", parser=_folder, metavar="DIRECTORY"),
    ] = None,
) -> None:
    """Time the pruned model beside the dense engines you could run instead."""
    with _stages() as stage:
        from thresher.bench.run import bench as run
        from thresher.files.lock import sole_writer
        from thresher.show.figures import bench_figure, save
        from thresher.show.tables import bench_table, profile_table

        home = out or _home(folder)
        with sole_writer(home / "bench.json"):
            report = run(
                folder,
                eval_,
                text or [],
                label,
                precisions=_columns(precision),
                engines=_columns(engine),
                max_length=max_length,
                budget=at_budget,
                batch=batch_size,
                texts=texts,
                repeats=repeats,
                memory=memory,
                profile=profile,
                label_map=_pairs(label_map),
                stage=stage,
            )
            stage("drawing")
            file = report.write(home / "bench.json")
            save(bench_figure(report.rows), home / "bench.png")
    profiled = any(row.profile for row in report.rows)
    for table in (bench_table(report), *([profile_table(report)] if profiled else [])):
        _print(table, max(console.width, WIDE))
    _say(f"Report: {file}\nFigure: {home / 'bench.png'}")
    if report.stopped:
        raise KeyboardInterrupt(f"The table is of what was done: {report.repeats} rounds of {repeats}.")


@_command
def predict(
    folder: Folder,
    input_: Annotated[Path, typer.Option("--input", help="File to read.")],
    output: Annotated[
        Path, typer.Option(help="File to write; its suffix is the format. A single - is the standard output.")
    ],
    text: KnownText = None,
    precision: RunPrecision = "fp32",
    engine: Engine = "torch",
    max_length: RunLength = None,
    at_budget: AtBudget = None,
    force: Force = False,
    resume: Resume = False,
) -> None:
    """Classify or score every row of a file of any size; adds `prediction`, and for classes `score`."""
    with _stages() as stage:
        from thresher.data.formats import is_stream
        from thresher.inference.stream import predict_file

        try:
            rows = predict_file(
                folder,
                input_,
                output,
                text or [],
                precision=precision,
                engine=engine,
                max_length=max_length,
                budget=at_budget,
                force=force,
                resume=resume,
                stage=stage,
            )
        except KeyboardInterrupt as error:
            if is_stream(output):
                raise
            raise KeyboardInterrupt(
                f"The answers so far are kept beside {output}. Run the same command with --resume to go on."
            ) from error
        except BrokenPipeError as error:  # as where `head` has read enough
            raise _CannotPrint(error.errno, error.strerror) from error
    if is_stream(output):
        err.print(f"{rows} rows")
    else:
        _say(f"{rows} rows in {output}")


@_command
def show(
    folder: Folder,
    text: Annotated[str, typer.Argument(help="The text to look at.")],
    pair: Annotated[str | None, typer.Option(help="Second text of a pair.")] = None,
    at_budget: AtBudget = None,
) -> None:
    """Show which tokens of a text survive to which layer."""
    with _stages() as stage:
        from thresher.inference.load import open_model
        from thresher.show.view import render, survival

        text, pair = _argument(text), None if pair is None else _argument(pair)
        stage("loading the model")
        model, encoder, _ = open_model(folder, budget=at_budget)
        encoder.encode([text], None if pair is None else [pair])
        encoder.warn(encoder.truncated, encoder.seen)
        view = render(survival(model, encoder.tokenizer, text, pair, encoder.max_length))
    _print(view)


@_command
def demo(
    out: Out = Path("demo"),
    seed: Seed = 42,
) -> None:
    """Fine-tune and prune a real encoder, on the docstrings of this very Python."""
    from thresher.demo.run import run

    run(out, seed, _print, _stages)


@contextmanager
def _stages() -> Iterator[Stages]:
    """What a command does while it works: first it imports, which takes seconds."""
    with stages() as stage:
        stage("starting")
        yield stage


def _argument(text: str) -> str:
    """A text of the command line, which is UTF-8 whatever the locale says."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError("The text is not UTF-8: set the terminal to UTF-8, or write it to a file.") from error


def _columns(text: str) -> list[str]:
    """``"a, b"`` to a list."""
    return [column.strip() for column in text.split(",") if column.strip()]


def _pairs(given: list[str] | None) -> dict[str, str]:
    """``["0=neg,1=pos"]``, ``["0=neg", "1=pos"]`` and the name of a JSON file that holds as much."""
    import json

    pairs: dict[str, str] = {}
    for item in given or ():
        if item.endswith(".json"):
            try:
                pairs |= {
                    str(key): str(value) for key, value in json.loads(Path(item).read_text("utf-8")).items()
                }
            except (OSError, ValueError, AttributeError) as error:
                raise UserError(
                    f'--label-map {item}: no JSON object of labels and classes, as {{"0": "neg"}} '
                    f"({one_line(error)})."
                ) from error
            continue
        parts = item.split(",") if all("=" in part for part in item.split(",")) else [item]
        for part in parts:
            label, equals, name = part.partition("=")
            if not (equals and label.strip() and name.strip()):
                raise UserError(f"--label-map {item}: write FROM=TO, as 1=pos.")
            pairs[label.strip()] = name.strip()
    return pairs


def _points(given: str) -> float:
    """``"1%"`` and ``"1"`` alike: a hundredth of the whole scale of quality."""
    try:
        points = float(given.removesuffix("%"))
    except ValueError:
        raise UserError(f"--max-drop {given}: write points of quality, as 1%.") from None
    if 0 < points < 0.1 and not given.endswith("%"):
        raise UserError(f"--max-drop {given}: write {100 * points:g}% if you mean that, or {points:g}%.")
    return points


def _share(given: str, option: str) -> float:
    """``"1%"`` and ``"0.01"`` alike."""
    try:
        return float(given.removesuffix("%")) / (100 if given.endswith("%") else 1)
    except ValueError:
        raise UserError(f"{option} {given}: write a share, as 1% or 0.01.") from None


def _budgets(given: str) -> float | list[float]:
    """``"0.5"``, or ``"0.7,0.5"``."""
    try:
        budgets = [float(part) for part in _columns(given)]
    except ValueError:
        budgets = []
    if not budgets:
        raise UserError(f"--budget {given}: write a share of the FLOPs, as 0.5, or several, as 0.7,0.5.")
    return budgets[0] if len(budgets) == 1 else budgets


def _options(given: list[str]) -> dict[str, Any]:
    """``["gate=paper", "dense_layers=1"]`` to a dict, values read as JSON where they are."""
    import json

    options: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--option {item}: write NAME=VALUE.")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def _print(renderable: Any, width: int | None = None) -> None:
    with _printing():
        console.print(renderable, width=width)


def _say(line: str) -> None:
    with _printing():
        console.print(line, highlight=False, soft_wrap=True)


def _home(folder: str) -> Path:
    """Where reports on a model go: its folder, or of one of the hub the working directory."""
    path = Path(folder).expanduser()
    return path if path.is_dir() else Path()


def _wrote(folder: Path) -> None:
    _say(f"Model and report: {folder}")


def main() -> None:
    """Entry point."""
    code: Any = 0
    try:
        try:
            app()
        except SystemExit as end:
            code = end.code
        with _printing():
            pass
        sys.stderr.flush()
        os._exit(
            code if isinstance(code, int) else int(code is not None)
        )  # to take PyTorch down takes seconds
    except OSError as error:  # a command sees to its own: this is of printing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again at its end
        if error.errno == errno.EPIPE:  # as where `head` has read enough
            sys.exit(1)
        what = f"What is printed could not be written ({one_line(error)}). Free space, or send it elsewhere."
        sys.exit(_ends("Error:", "red", what, 2).exit_code)
