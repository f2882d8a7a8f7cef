"""Files that appear whole or not at all: under which name, readable by whom, and how they reach the disk."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from thresher.errors import UserError, writing

LOST = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # what was written is not on the disk
PARTIAL, GOING = ".partial-", ".removed-"  # how names begin of what is not yet whole, and not any more
OF_GROUP, OF_ALL = 0o070, 0o007
LONGEST_NAME = 200  # bytes: systems take 255, and what lies hidden beside a file has a longer name


def check_name(path: Path) -> None:
    """Refuse to write a file or folder beside which nothing hidden could lie.

    Raises
    ------
    UserError
        If its name is too long.
    """
    if (size := len(os.fsencode(path.name))) > LONGEST_NAME:
        raise UserError(f"'{path.name:.40}...' has {size} bytes; give a name of {LONGEST_NAME} at most.")


def check_utf8(folder: str | Path) -> None:
    """Refuse a model's folder that safetensors could not open.

    Raises
    ------
    UserError
        If its path is not UTF-8.
    """
    try:
        os.path.abspath(folder).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"'{folder}' is a path that is not UTF-8; give the folder another name.") from error


def partial_of(path: Path) -> Path:
    """Where a file is written until it is whole: beside it, with the same suffix."""
    return path.with_name(f"{PARTIAL}{path.name}")


def create_partial(path: Path, like: Path | None = None) -> Path:
    """Create the empty file in which another one is written until it is whole.

    Parameters
    ----------
    path : Path
        The file, with no link in its path; its folder is made if need be.
    like : Path, optional
        The file whose access rights the new one gets, if that file is there. Default: `path`.

    Returns
    -------
    Path
        `partial_of` `path`. Nobody else can open it, from the start, who could not open the file in `like` or
        `path`. A file that a killed run has left there is removed.
    """
    partial, model = partial_of(path), _model(path, like)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)  # a link there would lead the writing elsewhere
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(partial, flags, 0o666 if model is None else 0o600))
    if model is not None:
        match_access(partial, model, also=0o600)  # whoever writes it must be able to open it
    return partial


def match_access(path: Path, like: Path, also: int = 0) -> None:
    """Let those read and write a file or folder who may do so with another one; and the mode in `also`. Where
    the group cannot be the same, another group may do no more than everybody. Nothing changes where the other
    one is gone, because another writer may have replaced it."""
    try:
        wanted = like.stat()
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(wanted.st_mode)
    if path.stat().st_gid != wanted.st_gid:
        try:
            os.chown(path, -1, wanted.st_gid)
        except (OSError, AttributeError):  # not ours to give; not on Windows
            mode = mode & ~OF_GROUP | (mode & OF_ALL) << 3
    with suppress(OSError):  # a file system that has no modes
        path.chmod(mode | also)


def settle(partial: Path, path: Path, like: Path | None = None) -> None:
    """Put a finished file, or a folder where none is yet, in its place: after a power cut, either the old one
    is there or the new one. Who may read and write the old file, or the one in `like`, may the new one."""
    if (model := _model(path, like)) is not None:
        match_access(partial, model)
    sync_all(partial)
    partial.replace(path)
    sync(path.parent)


def discard(path: Path) -> None:
    """Remove a file or a folder. What is removed in part has another name, so that it is not opened."""
    going = path.with_name(f"{GOING}{path.name}")
    shutil.rmtree(going, ignore_errors=True)
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    with suppress(OSError):  # as of a mount
        path = path.rename(going)
    shutil.rmtree(path, ignore_errors=True)


def is_device(path: Path) -> bool:
    """Whether a path is no file or folder that could be replaced, as a pipe or the standard output."""
    special = path.exists() and not (path.is_file() or path.is_dir())
    return special or os.path.abspath(path).startswith(("/dev/fd/", "/dev/std", "/proc/self/fd/"))


def beside(path: Path) -> Path:
    """A path next to which something hidden can lie that belongs to `path`.

    It is `path` itself; or a path in the folder `path`, where its parent cannot be written, as beside a
    mount, or where the hidden thing goes with that folder.
    """
    alone = path.is_mount() or path.name.startswith(PARTIAL) or not os.access(path.parent, os.W_OK)
    inside = path.is_dir() and alone
    return path / f"{path.name}~" if inside else path


@contextmanager
def replacing(path: Path, like: Path | None = None) -> Iterator[Path]:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : Path
        The file; its folder is made if need be. A link is replaced, not followed: a folder of a stranger may
        hold one.
    like : Path, optional
        The file whose access rights the new one gets, if that file is there. Default: `path`.

    Yields
    ------
    Path
        The file to write in the ``with`` block. It takes the place of `path` at the end of the block, unless
        an exception ends it. A path that is no file, as ``/dev/stdout``, is written itself.

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
        path = path.parent.resolve() / path.name
        partial = create_partial(path, like)
        try:
            yield partial
            settle(partial, path, like)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


def sync_all(path: Path) -> None:
    """Have the system write a file, or a folder with all that it holds, to the disk."""
    for inner in path.rglob("*"):
        if not inner.is_symlink():
            sync(inner)
    sync(path)


def sync(path: Path) -> None:
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


def _model(path: Path, like: Path | None) -> Path | None:
    """The file whose mode and group a new one takes, if there is one."""
    return next((known for known in (like, path) if known is not None and known.exists()), None)
