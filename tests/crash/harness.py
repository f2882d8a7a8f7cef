"""Crash a command, go on with it, and compare what is then there with what the command left alone writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.crash import child
from thresher.errors import UserError
from thresher.model import PrunedModel
from thresher.training.base import load_base

KILLED = -9
NOTHING_TO_RESUME, COMPLETE = "no interrupted run", "already holds a model"
Tree = dict[str, bytes]


@dataclass(frozen=True)
class Command:
    """A command line, and the one that goes on with it.

    Attributes
    ----------
    name : str
    first : list of str
        Arguments of ``thresher``; what is written lies in the working directory.
    again : list of str
        Tried after a crash. Where it says that there is nothing to go on with, `first` is.
    before : Path, optional
        A folder whose content lies in the working directory before.
    """

    name: str
    first: list[str]
    again: list[str]
    before: Path | None = None


@dataclass(frozen=True)
class Operation:
    """One line of the log.

    Attributes
    ----------
    kind : str
        open, create, write, truncate, sync, close, rename, exchange, link, unlink or mkdir.
    path, to : str
        In the watched folder; `to` is empty where there is one path only.
    """

    kind: str
    path: str
    to: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.path}" + (f" -> {self.to}" if self.to else "")

    @property
    def sort(self) -> str:
        """The same for operations that are alike: on partial files with other random names, or on chunks."""
        return re.sub(r"\.tmp\w+|\d+", "*", str(self))


@dataclass(frozen=True)
class Crash:
    """Where a process is killed: at an operation, in the middle of it, or after some seconds."""

    at: int = 0
    torn: bool = False
    after: float | None = None

    def __str__(self) -> str:
        if self.after is not None:
            return f"killed after {self.after:.3f} s"
        return f"killed {'in' if self.torn else 'before'} operation {self.at}"


@dataclass
class Whole:
    """The run left alone: what it wrote, how, and in how many seconds."""

    tree: Tree
    operations: list[Operation]
    seconds: float


def compile_trap(folder: Path) -> Path:
    """Compile ``trap.c``.

    Raises
    ------
    RuntimeError
        If it cannot be, or cannot work here.
    """
    if sys.platform != "linux" or not (compiler := shutil.which("cc")):
        raise RuntimeError("crashes are made with Linux' seccomp and a C compiler")
    source, library = Path(__file__).with_name("trap.c"), folder / "trap.so"
    built = subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", source, "-o", library], capture_output=True, text=True
    )
    if built.returncode:
        raise RuntimeError(f"trap.c, which is for x86-64, does not compile: {built.stderr[-500:]}")
    probe = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).watch(b'/nowhere', 2, 0, 0))"
    if error := subprocess.run([sys.executable, "-c", probe, library]).returncode:
        raise RuntimeError(f"the system forbids seccomp: {os.strerror(error)}")
    return library


class Harness:
    """Runs commands in processes that can be crashed.

    Parameters
    ----------
    library : Path
        Of `compile_trap`.
    folder : Path
        For the working directories.
    """

    def __init__(self, library: Path, folder: Path):
        self.library, self.folder, self.trials = library, folder, 0
        self._wholes: dict[tuple[str, Path | None], Whole] = {}
        self.context = get_context("forkserver")
        self.context.set_forkserver_preload(["tests.crash.warm"])

    def whole(self, command: Command) -> Whole:
        """Leave a command alone, the first time that it is asked for."""
        if (key := (command.name, command.before)) in self._wholes:
            return self._wholes[key]
        work = self._work(command)
        start = time.monotonic()
        code = self._run(command.first, work)
        seconds = time.monotonic() - start
        assert code == 0, _said(work)
        assert _log(work), "no operation was seen"
        self._wholes[key] = Whole(tree(work / "files"), _log(work), seconds)
        shutil.rmtree(work)
        return self._wholes[key]

    def fault(self, command: Command, whole: Whole, crashes: Sequence[Crash], model: str = "") -> str | None:
        """Crash a command, and each run that goes on with it as often as is asked; then go on to the end.

        Parameters
        ----------
        command : Command
        whole : Whole
            Of the command.
        crashes : sequence of Crash
            Of the command, and of the runs that go on with it, in turn.
        model : str, optional
            A folder that at each crash must hold one model, or none: `mixed`.

        Returns
        -------
        str or None
            What is wrong then.
        """
        work, arguments, story = self._work(command), command.first, []
        files = work / "files"
        older = _under(tree(command.before), model) if command.before else {}
        for crash in (*crashes, None):
            code = self._run(arguments, work, crash)
            if code == 2 and NOTHING_TO_RESUME in _said(work):
                code = self._run(command.first, work, crash)
            if crash:
                story.append(f"{crash} ({['none yet', *_log(work)][-1]})")
            if not (code == 0 or (code == KILLED and crash) or (code == 2 and COMPLETE in _said(work))):
                return _story(story, f"exit code {code}: {_said(work)}")
            if model and (wrong := mixed(files / model, older, _under(whole.tree, model))):
                return _story(story, wrong)
            arguments = command.again
        if wrong := differences(tree(files), whole.tree):
            return _story(story, wrong)
        shutil.rmtree(work)
        return None

    def _run(self, arguments: list[str], work: Path, crash: Crash | None = None) -> int:
        crash = crash or Crash()
        process: BaseProcess = self.context.Process(
            target=child.run, args=(arguments, work, self.library, crash.at, crash.torn)
        )
        process.start()
        process.join(crash.after or 300)
        if process.is_alive():
            process.kill()
            process.join()
            assert crash.after is not None, f"{arguments} did not end in five minutes"
        assert process.exitcode is not None
        return process.exitcode

    def _work(self, command: Command) -> Path:
        self.trials += 1
        work = self.folder / f"{command.name}-{self.trials}"
        if command.before is not None:
            shutil.copytree(command.before, work / "files")
        else:
            (work / "files").mkdir(parents=True)
        for name in ("said", "log"):  # the child may be killed before it makes them
            (work / name).touch()
        return work.resolve()


def tree(folder: Path) -> Tree:
    """All files under a folder, by their names; what reports say of times is left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b"a folder"
        found[str(path.relative_to(folder))] = _timeless(content) if path.name == "report.json" else content
    return found


def differences(found: Tree, wanted: Tree) -> str:
    """In which files two trees differ, in words; empty if in none."""
    words = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    words += [f"{name} is left behind" for name in found.keys() - wanted.keys()]
    words += [
        f"{name} has other bytes" for name in found.keys() & wanted.keys() if found[name] != wanted[name]
    ]
    return ", ".join(sorted(words))


def mixed(folder: Path, old: Tree, new: Tree) -> str:
    """What is wrong if a folder is not wholly the old model or the new one, or refused in words."""
    present = {name: content for name, content in tree(folder).items() if "/" not in name and name[0] != "."}
    weights = {name for name in new if name.endswith(".safetensors") or name == "config.json"}
    for version in (old, new):
        version = version | {"checkpoints": b"a folder"}
        if weights <= present.keys() and present.items() <= version.items():
            return ""
    for opened in (PrunedModel.from_pretrained, load_base):
        try:
            opened(str(folder))
            break
        except UserError:
            continue
    else:
        return ""
    parts = {name: _which(content, old.get(name), new.get(name)) for name, content in present.items()}
    return f"the model is mixed: {parts}"


def unsynced(whole: Whole) -> list[str]:
    """Files that a power cut could leave empty: in place, or renamed, before they were synced."""
    dirty: set[str] = set()
    wrong: list[str] = []
    for operation in whole.operations:
        path, to = operation.path, operation.to
        if operation.kind in ("create", "write", "truncate"):
            dirty.add(path)
        elif operation.kind == "sync":
            dirty.discard(path)
        elif operation.kind in ("rename", "exchange"):
            moved = {name for name in dirty if name == path or name.startswith(f"{path}/")}
            # The safetensors library renames a file of its own within our partial folder.
            if moved and not Path(path).name.startswith(".tmp"):
                wrong.append(f"{operation}: {', '.join(sorted(moved))}")
            dirty = dirty - moved | {to + name.removeprefix(path) for name in moved}
    return wrong + [f"{name} at the end" for name in sorted(dirty & whole.tree.keys())]


def _which(content: bytes, old: bytes | None, new: bytes | None) -> str:
    return "old" if content == old else "new" if content == new else "neither"


def _timeless(report: bytes) -> bytes:
    """A report, sorted, without what differs from run to run: how long it took, and the loss since it was
    gone on with."""
    try:
        found = json.loads(report)
    except ValueError:
        return report
    found = {key: value for key, value in found.items() if key not in ("seconds", "resumed")}
    history = found.get("history", [])
    found["history"] = [entry for entry in history if "train_runtime" not in entry]
    return json.dumps(found, sort_keys=True).encode()


def _under(found: Tree, folder: str) -> Tree:
    return {name.removeprefix(f"{folder}/"): found[name] for name in found if name.startswith(f"{folder}/")}


def _log(work: Path) -> list[Operation]:
    return [Operation(*line.split("\t")) for line in (work / "log").read_text().splitlines()]


def _said(work: Path) -> str:
    return " ".join((work / "said").read_text(errors="replace").split())[-600:]


def _story(story: list[str], end: str) -> str:
    return f"{'; then '.join(story)}: {end}"
