"""Files and folders that appear whole or not at all, and one writer at a time."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from thresher.errors import UserError, writing

try:
    import fcntl
except ImportError:  # not POSIX: the lock tells who writes, but cannot refuse
    fcntl = None  # type: ignore[assignment]

CURRENT_DIRECTORY, EXCHANGE = -100, 2  # of renameat2(2)
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # of file systems that know none


def partial_of(path: Path) -> Path:
    """Where a file or a folder is written until it is whole: beside it, with the same suffix."""
    return path.with_name(f".partial-{path.name}")


def settle(partial: Path, path: Path) -> None:
    """Put a finished file in its place: after a power cut, either the old one is there or the new one."""
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : Path
        The file; its folder is made if need be.

    Yields
    ------
    Path
        The file to write in the ``with`` block. It takes the place of `path` at the end of the block, unless
        an exception ends it.

    Raises
    ------
    UserError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with replacing(path) as partial:
    ...     _ = partial.write_text("whole")
    >>> path.read_text()
    'whole'
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_of(path)
        try:
            yield partial
            settle(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextmanager
def replacing_folder(
    path: Path, last: str = "config.json", keep: Callable[[str], bool] = lambda name: True
) -> Iterator[Path]:
    """Write a folder whole or not at all: who opens `path` meets the old folder or the new one, never a mix.

    Parameters
    ----------
    path : Path
        The folder; it may exist.
    last : str
        The file without which nobody opens the folder. Where the system cannot exchange two folders at once,
        this file is removed first and put back last.
    keep : callable
        Told the name of a file or folder in the old folder, whether it belongs into the new one as well.

    Yields
    ------
    Path
        The folder to fill in the ``with`` block. It takes the place of `path` at the end of the block, unless
        an exception ends it.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    with writing(path):
        path = path.resolve()
        if path.exists() and not path.is_dir():
            raise UserError(f"'{path}' is a file; give the name of a folder to save to.")
        new = partial_of(path)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            yield new
            for file in new.rglob("*"):
                _sync(file)
            if not path.exists():
                new.rename(path)
            elif not (path / last).exists() or not _exchange(new, path, keep):
                _move(new, path, last, keep)
            _sync(path.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _exchange(new: Path, old: Path, keep: Callable[[str], bool]) -> bool:
    """Swap two folders in one step, what is kept being in both. False, with nothing done, where the system
    cannot: on some file systems, on other systems than Linux, and where `old` is a mount."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    names = [entry.name for entry in old.iterdir() if keep(entry.name) and not (new / entry.name).exists()]
    for name in names:
        if (old / name).is_dir() and not (old / name).is_symlink():
            shutil.copytree(old / name, new / name, symlinks=True, copy_function=_link)
        else:
            _link(old / name, new / name)
    shutil.copymode(old, new)
    paths = os.fsencode(new), os.fsencode(old)
    if rename(CURRENT_DIRECTORY, paths[0], CURRENT_DIRECTORY, paths[1], EXCHANGE) == 0:
        return True
    for name in names:
        _remove(new / name)
    return False


def _move(new: Path, old: Path, last: str, keep: Callable[[str], bool]) -> None:
    """Put what is new into a folder that stays, whose file `last` is missing meanwhile."""
    (old / last).unlink(missing_ok=True)
    _sync(old)
    for entry in list(old.iterdir()):
        if not keep(entry.name):
            _remove(entry)
    for entry in sorted(new.iterdir(), key=lambda entry: entry.name == last):
        if entry.is_dir():
            shutil.rmtree(old / entry.name, ignore_errors=True)
        entry.replace(old / entry.name)
    _sync(old)


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold a file or folder that is to be written, so that nobody else writes it in the ``with`` block.

    Parameters
    ----------
    path : Path
        The file or folder; a hidden file beside it says who holds it. Its parent is made if need be.

    Raises
    ------
    UserError
        If another run holds it, with that run's process and machine; or if nothing can be written there.
    """
    path = path.resolve()
    lock = path.with_name(f".{path.name}.lock")
    with writing(path):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _held(lock, path)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(file)


def _held(lock: Path, path: Path) -> int:
    """Open the lock file, and hold it; a run that ends while we do removes its file, so that we try again."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(file, 1000, 0).decode(errors="replace") or "another run"
            os.close(file)
            raise UserError(
                f"{path} is being written by {holder}. Wait until that run ends, or name another output."
            ) from error
        except OSError as error:
            os.close(file)
            if error.errno in NO_LOCKS:
                return os.open(os.devnull, os.O_RDONLY)
            raise
        with suppress(OSError):
            if os.fstat(file).st_ino == lock.stat().st_ino:
                break
        os.close(file)
    command = " ".join(Path(part).name if at == 0 else part for at, part in enumerate(sys.argv[:2]))
    os.ftruncate(file, 0)
    os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()} ({command})".encode(), 0)
    return file


def _sync(path: Path) -> None:
    """Have the system write a file or folder to the disk, where it can."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(file)
    finally:
        os.close(file)


def _link(source: str | Path, target: str | Path) -> None:
    """The same file under another name, or a copy where the file system knows no such names."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
