"""Files and folders that appear whole or not at all, and one writer at a time."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import sys
import time
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
LOST = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # what was written is not on the disk
PARTIAL, GOING = ".partial-", ".removed-"  # how names begin of what is not yet whole, and not any more
PATIENCE = 0.1  # seconds that a holder has to write its name


def partial_of(path: Path) -> Path:
    """Where a file or a folder is written until it is whole: beside it, with the same suffix."""
    return path.with_name(f"{PARTIAL}{path.name}")


def settle(partial: Path, path: Path) -> None:
    """Put a finished file, or a folder where none is yet, in its place: after a power cut, either the old one
    is there or the new one. Who may read and write the old file may the new one."""
    if path.exists():
        shutil.copymode(path, partial)
    _sync_all(partial)
    partial.replace(path)
    _sync(path.parent)


def discard(path: Path) -> None:
    """Remove a file or a folder: one that is removed in part has another name, so that nobody opens it."""
    going = path.with_name(f"{GOING}{path.name}")
    shutil.rmtree(going, ignore_errors=True)
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with suppress(OSError):  # as of a mount
        path = path.rename(going)
    shutil.rmtree(path, ignore_errors=True)


def sweep(path: Path) -> None:
    """Remove what a killed run has left of a folder that it was to write."""
    shutil.rmtree(partial_of(_beside(path.resolve())), ignore_errors=True)


def is_device(path: Path) -> bool:
    """Whether a path is no file or folder that could be replaced, as a pipe or the standard output."""
    special = path.exists() and not (path.is_file() or path.is_dir())
    return special or os.path.abspath(path).startswith(("/dev/fd/", "/dev/std", "/proc/self/fd/"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : Path
        The file; its folder is made if need be. A link stays, and leads to the new file.

    Yields
    ------
    Path
        The file to write in the ``with`` block. It takes the place of `path` at the end of the block, unless
        an exception ends it. What is no file, as ``/dev/stdout``, is written itself.

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
        if is_device(path):
            yield path
            return
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_of(path)
        partial.unlink(missing_ok=True)  # a link there would lead the writing elsewhere
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

        def stays(name: str) -> bool:
            return keep(name) and not name.startswith(GOING)

        new = partial_of(_beside(path))
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            yield new
            if not path.exists():
                settle(new, path)
            elif _in_use(path) or not (path / last).exists() or not _exchange(new, path, stays):
                _move(new, path, last, stays)
            _sync(path.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _exchange(new: Path, old: Path, keep: Callable[[str], bool]) -> bool:
    """Swap two folders in one step, what is kept being in both. False, with nothing done, where the system
    cannot: on some file systems, and on other systems than Linux."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    kept = [entry for entry in old.iterdir() if keep(entry.name) and not (new / entry.name).exists()]
    if rename is None or any(path.is_mount() for path in kept):
        return False
    for path in kept:
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True, copy_function=_link)
        else:
            _link(path, new / path.name)
    shutil.copymode(old, new)
    _sync_all(new)
    paths = os.fsencode(new), os.fsencode(old)
    if rename(CURRENT_DIRECTORY, paths[0], CURRENT_DIRECTORY, paths[1], EXCHANGE) == 0:
        return True
    for path in kept:
        discard(new / path.name)
    return False


def _move(new: Path, old: Path, last: str, keep: Callable[[str], bool]) -> None:
    """Put what is new into a folder that stays, whose file `last` is missing meanwhile. Folders that are not
    kept go at the end: they say nothing of what lies beside them, and may hold what it takes to try again."""
    names = sorted((entry.name for entry in new.iterdir()), key=lambda name: name == last)
    stale = [entry for entry in old.iterdir() if not keep(entry.name) and entry != new]
    stale = [entry for entry in stale if entry.name not in names]
    folders = [entry for entry in stale if entry.is_dir() and not entry.is_symlink()]
    _sync_all(new)
    (old / last).unlink(missing_ok=True)
    _sync(old)
    for entry in stale:
        if entry not in folders:
            discard(entry)
    for name in names:
        if (new / name).is_dir():
            discard(old / name)
        if name == last:
            _sync(old)
        (new / name).replace(old / name)
    _sync(old)
    for entry in folders:
        discard(entry)


def _beside(path: Path) -> Path:
    """A path next to which something hidden can lie that belongs to `path`: `path` itself, or where nobody
    writes beside it, as beside a mount, one in the folder `path`."""
    inside = path.is_dir() and (path.is_mount() or not os.access(path.parent, os.W_OK))
    return path / f"{path.name}~" if inside else path


def _in_use(folder: Path) -> bool:
    """Whether another folder in its place would not do, as of the working directory and of mounts."""
    return _beside(folder) != folder or Path.cwd().is_relative_to(folder)


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
    if is_device(path):
        yield
        return
    path = path.resolve()
    with writing(path):
        lock = _beside(path)
        lock = lock.with_name(f".{lock.name}.lock")
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
            time.sleep(PATIENCE)
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
            if os.path.samestat(os.fstat(file), lock.stat()):
                break
        os.close(file)
    command = " ".join(Path(part).name if at == 0 else part for at, part in enumerate(sys.argv[:2]))
    with suppress(OSError):  # a full disk: it is held, if nobody is told by whom
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()} ({command})".encode(), 0)
    return file


def _sync_all(path: Path) -> None:
    """Have the system write a file, or a folder with all that it holds, to the disk."""
    for inner in path.rglob("*"):
        if not inner.is_symlink():
            _sync(inner)
    _sync(path)


def _sync(path: Path) -> None:
    """Have the system write a file or folder to the disk, where it can."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return
    try:
        os.fsync(file)
    except OSError as error:  # not every file system knows how
        if error.errno in LOST:
            raise
    finally:
        os.close(file)


def _link(source: str | Path, target: str | Path) -> None:
    """The same file under another name, or a copy where the file system knows no such names."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
