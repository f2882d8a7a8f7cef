"""What a run of predict has answered so far, kept beside its output, so that the same run can go on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from thresher.data import iter_rows
from thresher.data.table import NoRows
from thresher.errors import UserError, writing
from thresher.files.atomic import replacing

Answers = list[dict[str, Any]]
TORN = 32  # bytes of a file that no reader knows, in which no row is lost


class Unkept:
    """The journal of an output that nobody can go on with: a pipe, or the standard output. It notes nothing.

    Attributes
    ----------
    rows, missing : int
        Rows done so far, and those among them that have no prediction.
    finished : dict or None
        Of a run that has ended well: its rows, their digest, and that of its output.
    """

    def __init__(self) -> None:
        self.rows = self.missing = 0
        self.finished: dict[str, Any] | None = None
        self._all = hashlib.sha256()

    def begin(self, run: Callable[[], dict[str, Any]]) -> None:
        """Say what the run is. Parameters and errors as of `Journal.begin`."""

    def close(self) -> None:
        """The run has ended, well or not."""

    def answers(self, digest: str, rows: int) -> Answers | None:
        """What was answered before to so many rows of this digest; None where nothing was.

        Raises
        ------
        UserError
            If other rows were answered in their place.
        """
        return None

    def add(self, digest: str, answers: Answers) -> None:
        """Keep the answers to the rows of this digest."""

    def count(self, digest: str, answers: Answers) -> None:
        """The rows of this digest are done."""
        self._all.update(digest.encode())
        self.rows += len(answers)
        self.missing += sum(answer["prediction"] is None for answer in answers)

    def end(self) -> None:
        """The input has ended.

        Raises
        ------
        UserError
            If more rows than it has were answered before.
        """

    def finish(self) -> None:
        """The output is whole: answers need not be kept any longer."""


class Journal(Unkept):
    """Answers by chunk, in a hidden file of JSON lines.

    The first line says what the run is: its model and settings. Each further line has the digest of a chunk's
    rows and the answers to them, and is on the disk before the next chunk begins. When the output is whole, a
    line about it takes the place of all answers.

    Parameters
    ----------
    output : Path
        What the run writes.
    force, resume : bool
        Write over an output and a journal that are there; go on where the same run stopped.

    Raises
    ------
    UserError
        If there is an output or an interrupted run, and nobody asked to write over it or to go on. If an
        output is to be gone on with of which nothing is known.
    """

    def __init__(self, output: Path, *, force: bool, resume: bool):
        super().__init__()
        self.output, self._place = output, output.resolve()
        self.path = journal_of(self._place)
        if self.path.exists() and not self.path.is_file():
            raise UserError(f"{self.path} is no file, but the name of a note on {output}. Remove it.")
        head = _head(self.path)
        whole = head[1].get("finished") if len(head) > 1 and isinstance(head[1], dict) else None
        if not (force or resume):
            _refuse(output, interrupted=bool(head) and not whole)
        if resume and not head and _has_rows(output):
            raise UserError(
                f"{output} has rows, but no note beside it says which run wrote them, so that nobody can go "
                "on with them. Set `force` to write the output anew."
            )
        self._before = head[0] if resume and head else None
        self.finished = whole if resume else None
        self._file: BinaryIO | None = None

    def begin(self, run: Callable[[], dict[str, Any]]) -> None:
        """Compare the run with the one to be resumed, or note what it is.

        Parameters
        ----------
        run : callable
            Gives what must be the same where the run is resumed, as JSON values.

        Raises
        ------
        UserError
            If the run to be resumed was another one, or its output has changed since.
        """
        what = json.loads(json.dumps(run()))
        if self._before is not None:
            _compare(self._before, what, self.output)
            self._check_output()
        if self.finished:
            return
        with writing(self.path):
            if self._before is None:
                with replacing(self.path, like=self._place) as partial:
                    partial.write_bytes(_line(what))
            self._file = open(self.path, "r+b")  # noqa: SIM115 - closed by `close`
            self._first = self._file.readline()

    def answers(self, digest: str, rows: int) -> Answers | None:
        assert self._file is not None
        place = self._file.tell()
        try:
            line = self._file.readline()
            known, answers = json.loads(line)
            if known == digest and len([answer["prediction"] for answer in answers]) != rows:
                line = b""
        except (ValueError, TypeError, KeyError):  # nothing is left, or half of a line
            line = b""
        if not line.endswith(b"\n"):
            self._file.seek(place)
            self._file.truncate()
            return None
        if known != digest:
            first, last = self.rows + 1, self.rows + len(answers)
            raise _changed(f"its rows {first} to {last}, which were answered, have changed")
        return answers

    def end(self) -> None:
        assert self._file is not None
        if self._file.readline().endswith(b"\n"):
            raise _changed("it has fewer rows than were answered")

    def _check_output(self) -> None:
        """Refuse the output of a finished run if it was changed since. One that was removed is made anew."""
        if self.finished and not (self._place.exists() and self._place.stat().st_size):
            self._before = self.finished = None
        elif self.finished and _digest(self._place) != self.finished["output"]:
            raise UserError(
                f"{self.output} has changed since its run ended. Set `force` to write the output anew."
            )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, digest: str, answers: Answers) -> None:
        assert self._file is not None
        with writing(self.path):
            self._file.write(_line([digest, answers]))
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self) -> None:
        self.close()
        found = {"rows": self.rows, "missing": self.missing, "digest": self._all.hexdigest()}
        found["output"] = _digest(self._place)
        with replacing(self.path, like=self._place) as partial:
            partial.write_bytes(self._first + _line({"finished": found}))

    def compare(self, digests: Iterable[str]) -> None:
        """Compare an input, as the digests of its chunks, with that of the finished run.

        Raises
        ------
        UserError
            If it is another one.
        """
        assert self.finished is not None
        for digest in digests:
            self.count(digest, [])
        self.rows, self.missing = self.finished["rows"], self.finished["missing"]
        if self._all.hexdigest() != self.finished["digest"]:
            raise UserError(
                f"{self.output} is whole, but the input has changed since. Set `force` to write the output "
                "anew."
            )


def journal_of(output: Path) -> Path:
    """Where the journal of an output lies: hidden, beside it."""
    return output.with_name(f".{output.name}.run")


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _line(values: Any) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _head(path: Path) -> list[Any]:
    """The first two whole lines of a journal: what the run is, and perhaps that it is finished."""
    try:
        with open(path, "rb") as file:
            lines = [line for line in (file.readline(), file.readline()) if line.endswith(b"\n")]
        found = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return []
    return found if found and isinstance(found[0], dict) else []


def _has_rows(output: Path) -> bool:
    """Whether a file may have a row: one of a run that was killed at once has none, or a torn beginning."""
    if not output.exists():
        return False
    try:
        return next(iter_rows(output), None) is not None
    except NoRows:
        return False
    except UserError:  # whatever it holds, it may be dear to somebody
        return output.stat().st_size > TORN


def _refuse(output: Path, interrupted: bool) -> None:
    if interrupted:
        raise UserError(
            f"A run that writes {output} was interrupted. Set `resume` to go on with it, or `force` to start "
            "anew."
        )
    if output.exists():
        raise UserError(
            f"{output} exists already. Set `force` to write over it, or `resume` to go on with the run "
            "that began it."
        )


def _changed(how: str) -> UserError:
    return UserError(
        f"The input is another than when the run began: {how}. Resume with the input as it was, or set "
        "`force` to start anew."
    )


def _compare(before: dict[str, Any], run: dict[str, Any], output: Path) -> None:
    if changed := [key for key in run if before.get(key) != run[key]]:
        was, now = before.get(changed[0]), run[changed[0]]
        values = "" if changed[0] == "model" else f" ({was}, now {now})"
        name = changed[0] if changed[0] in ("version", "model", "chunk") else f"`{changed[0]}`"
        raise UserError(
            f"The run that began {output} had another {name}{values}. Resume with the same, or set "
            "`force` to start anew."
        )
