"""One writer at a time."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from thresher.errors import UserError, writing
from thresher.files.atomic import beside, check_name, is_device

try:
    import fcntl
except ImportError:  # not POSIX: the lock file tells who writes, but cannot refuse
    fcntl = None  # type: ignore[assignment]

# Errors of file systems without locks, or without locks on files that are open for reading only.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)
PATIENCE = 0.1  # seconds that a holder has to write its name
TRIES = 100  # after which a lock file that always seems to be another one is held as it is


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold a file or folder that is to be written, so that no other run writes it in the ``with`` block.

    Parameters
    ----------
    path : Path
        The file or folder; a hidden file beside it says who holds it. Its parent is made if need be.

    Raises
    ------
    UserError
        If its name is too long; if another run holds it, with that run's process and machine; or if nothing
        can be written there.
    """
    if is_device(path):
        yield
        return
    path = path.resolve()
    check_name(path)
    with writing(path):
        lock = beside(path)
        lock = lock.with_name(f".{lock.name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _held(lock, path)
    try:
        yield
    finally:
        if not fcntl:  # what is open cannot be removed
            os.close(file)
        with suppress(OSError):
            lock.unlink()
        if fcntl:  # in this order, or the file that is removed may be another run's
            os.close(file)


def try_lock(file: int, shared: bool = False) -> bool | None:
    """Hold an open file or folder until it is closed, alone or together with others that share it.

    Returns
    -------
    bool or None
        False if another holds it. None where the system knows no locks.
    """
    if not fcntl:
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


@contextmanager
def locking(folder: Path, shared: bool = False) -> Iterator[bool | None]:
    """Hold a folder itself in the ``with`` block, which is told what `try_lock` says."""
    try:
        file = os.open(folder, os.O_RDONLY)
    except OSError:  # gone; or not ours to read; or on Windows
        yield None
        return
    try:
        yield try_lock(file, shared)
    finally:
        os.close(file)


def _held(lock: Path, path: Path) -> int:
    """Open the lock file, and hold it; a run that ends while we do removes its file, so that we try again."""
    for left in reversed(range(TRIES)):
        file, writable = _open(lock)
        try:
            locked = try_lock(file)
            if locked is False:
                raise UserError(
                    f"{path} is being written by {_holder(file)}. Wait until that run ends, or name another "
                    "output."
                )
            if not left or (_is_at(file, lock) and (writable or not locked or not _removed(lock))):
                break
        except BaseException:
            os.close(file)
            raise
        os.close(file)
    with suppress(OSError):  # a full disk: the file is held, and only the holder's name is missing
        _sign(file)
    return file


def _open(lock: Path) -> tuple[int, bool]:
    """The lock file, and whether our name can be written to it: another user's file can be held all the same.
    A link is not followed, because it may lead anywhere."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | flags, 0o666), True
    except PermissionError:
        for how in (os.O_RDWR, os.O_RDONLY):
            with suppress(OSError):
                return os.open(lock, how | flags), how == os.O_RDWR
        raise


def _is_at(file: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), lock.stat())
    except OSError:
        return False


def _removed(lock: Path) -> bool:
    """Whether what a killed run of another user has left, which we hold, could be removed: the next file will
    be ours, and have our name."""
    try:
        lock.unlink()
    except OSError:
        return False
    return True


def _holder(file: int) -> str:
    time.sleep(PATIENCE)
    return os.read(file, 1000).decode(errors="replace") or "another run"


def _sign(file: int) -> None:
    command = " ".join(Path(part).name if at == 0 else part for at, part in enumerate(sys.argv[:2]))
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, f"process {os.getpid()} on {socket.gethostname()} ({command})".encode())
