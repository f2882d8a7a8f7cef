"""``thresher bench``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thresher.cli.ends import WIDE, console, say, show, working
from thresher.cli.options import ENGINES, AtBudget, Folder, KnownText, LabelMap, Measured, RunLength
from thresher.cli.values import folder as folder_to_write
from thresher.cli.values import home, pairs, parts


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
        str,
        typer.Option(help=f"What runs the layers, one or more of: {ENGINES}."),
    ] = "auto,openvino",
    max_length: RunLength = None,
    at_budget: AtBudget = None,
    batch_size: Annotated[int, typer.Option(help="Texts in a batch.")] = 32,
    texts: Annotated[int, typer.Option(help="Most texts, spread over the file.")] = 512,
    repeats: Annotated[int, typer.Option(help="Rounds; every engine runs in each of them.")] = 5,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, in fresh processes.")] = True,
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time goes.")] = False,
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
        from thresher.show.tables import bench_table, profile_table

        place = out or home(folder)
        with sole_writer(place / "bench.json"):
            report = run(
                folder,
                eval_,
                text or [],
                label,
                precisions=parts(precision),
                engines=parts(engine),
                max_length=max_length,
                budget=at_budget,
                batch=batch_size,
                texts=texts,
                repeats=repeats,
                memory=memory,
                profile=profile,
                label_map=pairs(label_map),
                stage=stage,
            )
            stage("drawing")
            file = report.write(place / "bench.json")
            save(bench_figure(report.rows), place / "bench.png")
    profiled = any(row.profile for row in report.rows)
    for table in (bench_table(report), *([profile_table(report)] if profiled else [])):
        show(table, max(console.width, WIDE))
    say(f"Report: {file}\nFigure: {place / 'bench.png'}")
    if report.stopped:
        raise KeyboardInterrupt(f"The table is of what was done: {report.repeats} rounds of {repeats}.")
