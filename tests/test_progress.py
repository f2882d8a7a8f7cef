"""Stages of long work: as lines of a log, and as bars of a terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from thresher.inference.progress import silent
from thresher.show import progress
from thresher.show.progress import stages


@pytest.fixture
def screen(monkeypatch):
    """The error stream, as text; called with whether it is a terminal."""

    def made(terminal: bool) -> io.StringIO:
        file = io.StringIO()
        console = Console(
            file=file, force_terminal=terminal, markup=False, emoji=False, highlight=False, width=100
        )
        monkeypatch.setattr(progress, "err", console)
        return file

    return made


def work(names: list[str]) -> None:
    with stages() as stage:
        for name in names:
            advance = stage(name, 3)
            advance(2)
            advance.show(completed=3, note="loss 0.5 [/x]")
        stage("the end")


@pytest.mark.parametrize("terminal", [True, False])
def test_names_are_printed_as_they_are(screen, terminal):
    file = screen(terminal)
    names = ["base's outputs, [/old]", "o/[run]", ":smile:"]
    work(names)
    said = file.getvalue()
    assert all(name in said for name in [*names, "the end"])


def test_a_log_gets_a_line_a_stage_and_then_one_in_a_while(screen, monkeypatch):
    file, clock = screen(False), iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with stages() as stage:
        advance = stage("counting", 10)
        for _ in range(6):
            advance(1)
        stage("writing")
    assert file.getvalue().splitlines() == [
        "counting: 10 to do",
        "counting: 2 of 10",
        "counting: 4 of 10",
        "counting: 6 of 10",
        "writing ...",
    ]


def test_one_stage_is_live_and_the_others_leave_a_line(screen, monkeypatch):
    """All of them would not fit the screen, and the one that is at work would not be seen."""
    file = screen(True)
    monkeypatch.setattr(progress, "TOLD", 0.0)
    with stages() as stage:
        for number in range(60):
            bar = stage(f"stage {number}", 2)
            bar(1)
        assert [task.description for task in bar.bars.tasks] == ["stage 59"]
        bar(1)
        last = stage("the end")
        bar(1)  # of a stage that has ended: nothing
        last.show(note="done")
    said = file.getvalue()
    assert all(re.search(rf"stage {number}: 0:00:\d\d, 1 of 2", said) for number in range(59))
    assert re.search(r"the end: 0:00:\d\d, done", said)


def test_a_long_note_squeezes_nothing_at_80_columns(screen, monkeypatch):
    """The spinner turns, and the counts are whole, whatever there is to say."""
    file = screen(True)
    progress.err.width = 80
    with stages() as stage:
        bar = stage("training, hard stage", 1200)
        bar.show(completed=34, note="loss 0.340, FLOPs 0.38, target 0.40, tokens 71%, held out 29.2, " * 3)
        bar.bars.refresh()
    frames = [line for line in file.getvalue().splitlines() if "training, hard stage" in line]
    assert any("34/1200" in frame and "loss" not in frame for frame in frames)
    spinner = progress.SpinnerColumn().spinner.frames
    assert all(any(turn in frame for turn in spinner) for frame in frames if "34/1200" in frame)


def test_nobody_need_be_told():
    advance = silent("counting", 3)
    advance(1)
    advance.show(completed=3)
