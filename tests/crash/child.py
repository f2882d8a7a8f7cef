"""One command of ours in a process of its own, which may crash at an operation on files.

`multiprocessing` forks every such process from a server that has imported `tests.crash.warm`: a run takes as
long as its work.
"""

from __future__ import annotations

import ctypes
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers

from thresher import cli
from thresher.inference import stream
from thresher.training import session

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
datasets.disable_progress_bars()


def run(arguments: list[str], work: Path, library: Path, crash_at: int, torn: bool) -> None:
    """Run a command in ``work/files``, with what it says in ``work/said`` and its operations in ``work/log``.

    Parameters
    ----------
    arguments : list of str
        Of the program ``thresher``.
    work, library : Path
        Its folder; the compiled ``trap.c``.
    crash_at : int
        The operation at which it is killed; 0: none.
    torn : bool
        Kill it when half of the bytes of this operation, a write, are written, not before.
    """
    stream.CHUNK = 4
    session.speeds = lambda *args, **kwargs: None  # type: ignore[assignment]
    os.chdir(work / "files")
    said, log = (os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("said", "log"))
    os.dup2(said, 1)
    os.dup2(said, 2)
    code: Any = 1
    try:
        if error := ctypes.CDLL(str(library)).watch(bytes(work / "files"), log, crash_at, int(torn)):
            raise OSError(error, os.strerror(error))
        cli.app(arguments)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
