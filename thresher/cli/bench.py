"""``thresher bench``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thresher.cli.ends import WIDE, console, say, show, working
from thresher.cli.options import ENGINES, AtBudget, Folder, KnownText, LabelMap, Measured, RunLength
from thresher.cli.values import folder as folder_to_write
from thresher.cli.values import home, pairs, parts

Fresh = Annotated[
    bool | None,
    typer.Option(
        "--memory/--no-memory",
        help="Measure cold start, resident size and peak memory, in fresh processes. Default: yes.",
    ),
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="Take under two minutes for a small model on two cores: 32 texts, 3 rounds, engine auto, int8 "
        "calibrated on 32 texts; no ONNX Runtime, no fresh processes. Options that are given still count.",
    ),
]


def bench(
    folder: Folder,
    eval_: Measured,
    text: KnownText = None,
    label: Annotated[str | None, typer.Option(help="Label column, to report quality as well.")] = None,
    label_map: LabelMap = None,
    precision: Annotated[
        str, typer.Option(help="Numbers to run in: fp32, bf16 and int8, one or more, with commas.")
    ] = "fp32",
    engine: Annotated[
        str | None,
        typer.Option(help=f"What runs the layers, one or more of: {ENGINES}. Default: auto,openvino."),
    ] = None,
    max_length: RunLength = None,
    at_budget: AtBudget = None,
    batch_size: Annotated[int, typer.Option(help="Texts in a batch.")] = 32,
    texts: Annotated[int | None, typer.Option(help="Most texts, spread over the file. Default: 512.")] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Rounds; every engine runs in each of them. Default: 5.")
    ] = None,
    memory: Fresh = None,
    quick: Quick = False,
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time goes.")] = False,
    device: Annotated[
        str, typer.Option(help="Where models run: cpu, or cuda, with transformers and torch.")
    ] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for bench.json and bench.png. Default: that of the model.",
            parser=folder_to_write,
            metavar="DIRECTORY",
        ),
    ] = None,
) -> None:
    """Time a pruned model beside the dense engines that you could run instead."""
    with working() as stage:
        from thresher.bench.run import bench as run
        from thresher.files.lock import sole_writer
        from thresher.show.figures import bench_figure, save
        from thresher.show.tables import bench_table, fresh_table, profile_table
        from thresher.show.wording import count

        place = out or home(folder)
        with sole_writer(place / "bench.json"):
            report = run(
                folder,
                eval_,
                text or [],
                label,
                precisions=parts(precision),
                engines=None if engine is None else parts(engine),
                max_length=max_length,
                budget=at_budget,
                batch=batch_size,
                texts=texts,
                repeats=repeats,
                memory=memory,
                profile=profile,
                quick=quick,
                device=device,
                label_map=pairs(label_map),
                stage=stage,
            )
            stage("drawing")
            file = report.write(place / "bench.json")
            save(bench_figure(report.rows), place / "bench.png")
    more = [table for table in (fresh_table(report), profile_table(report)) if table.row_count]
    for table in (bench_table(report), *more):
        show(table, max(console.width, WIDE))
    say(f"Report: {file}\nFigure: {place / 'bench.png'}")
    if report.stopped:
        raise KeyboardInterrupt(f"The table is of what was done: {count(report.repeats, 'round')}.")
