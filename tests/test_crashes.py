"""Every command, killed at its operations on files and at random moments, ends as the run left alone does.

In the short form some operations are tried, of each kind some; ``pytest tests/test_crashes.py --long``
tries every operation, and writes torn in the middle as well.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from tests import toy
from tests.crash.harness import Command, Crash, Harness, Whole, compile_trap, unsynced
from tests.test_predict_file import save

FORMATS = ("tsv", "csv", "jsonl", "tsv.gz", "csv.gz", "jsonl.gz", "parquet")
TRAINING = ("prune", "finetune", "calibrate")
POINTS, KILLS = {"predict": 4, "prune": 3, "finetune": 3, "calibrate": 4}, 3  # in the short form
ALL_KILLS, PARTS = 50, 8


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """In the long form every test is cut into parts, so that all cores have some."""
    if "part" in metafunc.fixturenames:
        parts = PARTS if metafunc.config.getoption("long") else 1
        metafunc.parametrize("part", [slice(start, None, parts) for start in range(parts)], ids=range(parts))


@pytest.fixture(scope="module")
def everything(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("long")


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    try:
        library = compile_trap(tmp_path_factory.mktemp("trap"))
    except RuntimeError as error:
        pytest.skip(str(error))
    return Harness(library, tmp_path_factory.mktemp("crashes"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, texts, and in ``before`` older models whose classes are in another order."""
    folder = tmp_path_factory.mktemp("inputs")
    toy.write_tsv(folder / "train.tsv", 80)
    toy.write_tsv(folder / "many.tsv", 160)
    notes = ("plain", "tab\tand\nline", 'a, "b"; c', "Größe ☃", "")
    rows = [{"text": text, "note": notes[i % 5], "n": i} for i, (text, _) in enumerate(toy.rows(21))]
    toy.write_jsonl(folder / "in.jsonl", rows)
    save(folder)  # in `base` and `pruned`
    save(folder / "older", ("pos", "neg"))
    for name in TRAINING:
        out = folder / "before" / name / "out"
        shutil.copytree(folder / "older" / ("base" if name == "finetune" else "pruned"), out)
        (out / "report.json").write_text(json.dumps({"of": "the older model"}))
        (out / "notes.txt").write_text("of the user\n")
    return folder


def _command(name: str, inputs: Path, over: bool = False) -> Command:
    """``prune`` and the like, or ``predict-`` with a format; `over` an older model, with --force."""
    if name.startswith("predict-"):
        words = (
            f"predict {inputs}/pruned --input {inputs}/in.jsonl --output out.{name.removeprefix('predict-')}"
        )
        return Command(name, words.split(), [*words.split(), "--resume"])
    if name == "calibrate":
        words = f"calibrate {inputs}/base --data {inputs}/many.tsv --text text --out out --max-change 20%"
    else:
        words = (
            f"{name} {inputs}/base --train {inputs}/train.tsv --text text --label label --out out "
            "--precision fp32 --evaluations 2 "
        )
        words += "--epochs 0.5" if name == "finetune" else "--soft-epochs 0.4 --hard-epochs 0.4 --no-saliency"
    again = words.split() + ["--resume"] * (name != "calibrate")
    if not over:
        return Command(name, words.split(), again)
    first = [*words.split(), "--force"]
    return Command(name, first, again if name != "calibrate" else first, inputs / "before" / name)


def _points(whole: Whole, some: int, seed: str) -> list[Crash]:
    """Where to crash: at `some` operations, no two of them alike; or everywhere (0)."""
    numbered = list(enumerate(whole.operations, 1))
    everywhere = [Crash(at) for at, _ in numbered]
    everywhere += [Crash(at, torn=True) for at, operation in numbered if operation.kind == "write"]
    if not some:
        return everywhere
    draw = random.Random(seed)
    draw.shuffle(everywhere)
    kinds = {(whole.operations[crash.at - 1].sort, crash.torn): crash for crash in everywhere}
    return draw.sample(list(kinds.values()), min(some, len(kinds)))


def _try(harness: Harness, command: Command, whole: Whole, points: list[Crash], model: str = "") -> None:
    """Crash at each point; every third run is crashed again while it goes on."""
    draw, wrong = random.Random(command.name), []
    for number, point in enumerate(points):
        again = [Crash(draw.randint(1, len(whole.operations)))] if number % 3 == 2 else []
        wrong += [fault] if (fault := harness.fault(command, whole, [point, *again], model)) else []
    assert not wrong, f"{len(wrong)} of {len(points)} crashes:\n" + "\n".join(wrong)


@pytest.mark.parametrize("kind", FORMATS)
def test_predict_crashes_anywhere(
    kind: str, part: slice, harness: Harness, inputs: Path, everything: bool
) -> None:
    command = _command(f"predict-{kind}", inputs)
    whole = harness.whole(command)
    points = _points(whole, 0 if everything else POINTS["predict"], kind)
    _try(harness, command, whole, points[part])


@pytest.mark.parametrize("over", [False, True], ids=["new", "over"])
@pytest.mark.parametrize("name", TRAINING)
def test_training_crashes_anywhere(
    name: str, over: bool, part: slice, harness: Harness, inputs: Path, everything: bool
) -> None:
    command = _command(name, inputs, over)
    whole = harness.whole(command)
    points = _points(whole, 0 if everything else POINTS[name], f"{name}{over}")
    _try(harness, command, whole, points[part], "out")


@pytest.mark.parametrize("name", ["predict-tsv", "predict-parquet", *TRAINING])
def test_kills_at_any_moment(
    name: str, part: slice, harness: Harness, inputs: Path, everything: bool
) -> None:
    command = _command(name, inputs)
    whole = harness.whole(command)
    draw = random.Random(name)
    moments = [Crash(after=draw.uniform(0, whole.seconds)) for _ in range(ALL_KILLS if everything else KILLS)]
    _try(harness, command, whole, moments[part], "" if name.startswith("predict") else "out")


@pytest.mark.parametrize("name", [*(f"predict-{kind}" for kind in FORMATS), *TRAINING])
def test_nothing_takes_its_place_before_it_is_synced(name: str, harness: Harness, inputs: Path) -> None:
    assert not unsynced(harness.whole(_command(name, inputs)))
