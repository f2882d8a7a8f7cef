"""Folders that appear whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from thresher.errors import UserError, writing
from thresher.files.atomic import (
    GOING,
    beside,
    check_name,
    check_utf8,
    discard,
    match_access,
    partial_of,
    sync,
    sync_all,
)
from thresher.files.lock import locking

CURRENT_DIRECTORY, EXCHANGE = -100, 2  # of renameat2(2)
OF_OTHERS = 0o077

Keep = Callable[[str], bool]
Identity = tuple[int, int]  # of a file, whatever its names


@contextmanager
def replacing_folder(path: Path, last: str = "config.json", keep: Keep = lambda name: True) -> Iterator[Path]:
    """Write a folder whole or not at all: readers of `path` meet the old folder or the new one, never a mix.
    Where several writers do so at the same time, each writes a whole folder, and the last writer's stays.

    Parameters
    ----------
    path : Path
        The folder; it may exist. New files get the access rights of the files that they replace.
    last : str
        The file without which the folder cannot be opened. Where the system cannot exchange two folders at
        once, this file is removed first and put back last.
    keep : callable
        Told the name of a file or folder in the old folder, whether it belongs into the new one as well.

    Yields
    ------
    Path
        The folder to fill in the ``with`` block; no other user can read it. It takes the place of `path` at
        the end of the block, unless an exception ends it.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    with writing(path):
        path = path.resolve()
        if path.exists() and not path.is_dir():
            raise UserError(f"'{path}' is a file; give the name of a folder to save to.")
        check_name(path)
        check_utf8(path)
        sweep(path, sure=True)
        with _partial(path) as (new, mode):
            yield new
            _match_all(new, path)
            sync_all(new)
            if not _rename(new, path, mode) and not _exchange(new, path, last, keep):
                _move(new, path, last, keep)


def sweep(path: Path, sure: bool = False) -> None:
    """Remove what killed runs have left of a folder that they were to write. Where the system cannot tell
    whether a run still writes it, that is removed as well, unless `sure`: for those who hold `path`."""
    for folder in _partials(path.resolve()):
        with locking(folder) as free:
            if free or (free is None and not sure):
                _remove(folder)


@contextmanager
def _partial(path: Path) -> Iterator[tuple[Path, int]]:
    """A new folder beside `path`, locked as long as it is being written, and the mode that it should have."""
    while True:
        new = partial_of(beside(path))
        new = new.with_name(f"{new.name}.{secrets.randbelow(10**12)}")
        new.mkdir(parents=True)
        with locking(new, shared=True) as locked:
            if locked is False or not new.exists():
                continue  # another run took the folder for what a killed run has left
            mode = stat.S_IMODE(new.stat().st_mode)
            new.chmod(mode & ~OF_OTHERS)
            try:
                yield new, mode
            finally:
                _remove(new)
            return


def _partials(path: Path) -> list[Path]:
    """The folders of `_partial`."""
    place = partial_of(beside(path))
    name = re.compile(rf"{re.escape(place.name)}\.\d+")
    with suppress(OSError):
        found = [entry for entry in place.parent.iterdir() if name.fullmatch(entry.name)]
        return [entry for entry in found if _is_folder(entry)]
    return []


def _match_all(new: Path, path: Path) -> None:
    """Give files and folders the access of those that they replace."""
    for entry in new.rglob("*"):
        old = path / entry.relative_to(new)
        if old.exists() and not entry.is_symlink() and entry.is_dir() == old.is_dir():
            match_access(entry, old)


def _rename(new: Path, path: Path, mode: int) -> bool:
    """Put a folder where none is. False, with nothing done, where one is, or has come meanwhile."""
    if path.exists():
        return False
    new.chmod(mode)
    try:
        new.rename(path)
    except OSError:
        if not path.is_dir():
            raise
        return False
    sync(path.parent)
    return True


def _exchange(new: Path, path: Path, last: str, keep: Keep) -> bool:
    """Swap two folders in one step, what is kept being in both, and remove the old one. False, with nothing
    done, where the system cannot: on some file systems, and on other systems than Linux; and where another
    folder in its place would not do, as of the working directory and of mounts."""
    if beside(path) != path or Path.cwd().is_relative_to(path) or not (path / last).exists():
        return False
    given = {entry.name for entry in new.iterdir()}
    kept, linked = _kept(path, keep, given), set[Identity]()
    if any(entry.is_mount() for entry in kept) or not _can_swap(new):
        return False
    with locking(path, shared=True):  # it will have a partial folder's name, and hold what is yet to be moved
        try:
            for entry in kept:
                _link(entry, new / entry.name, linked)
            sync(new)
            match_access(new, path)
            _swap(new, path)
        except OSError:
            for entry in kept:
                discard(new / entry.name)
            return False
        for entry in _kept(new, keep, given):
            _bring(entry, path / entry.name, linked)
        sync(path)
        sync(path.parent)
        _remove(new)
    return True


def _kept(folder: Path, keep: Keep, given: set[str]) -> list[Path]:
    """What of a folder belongs into the new one as well, which was given files of some names."""
    names = [name for name in os.listdir(folder) if keep(name) and not name.startswith(GOING)]
    return [folder / name for name in names if name not in given]


def _swap(one: Path, other: Path) -> None:
    """Exchange two names in one step, or raise OSError."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(CURRENT_DIRECTORY, os.fsencode(one), CURRENT_DIRECTORY, os.fsencode(other), EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _can_swap(folder: Path) -> bool:
    """Whether the system can exchange folders here, by two empty ones."""
    pair = [folder / f"{GOING}{number}" for number in (1, 2)]
    for empty in pair:
        empty.mkdir()
    try:
        _swap(*pair)
    except OSError:
        return False
    finally:
        for empty in pair:
            empty.rmdir()
    return True


def _link(source: Path, target: Path, linked: set[Identity]) -> None:
    """Give a file, or all in a folder, another name, and note what has one."""
    with suppress(FileNotFoundError):  # another run has removed it
        if _is_folder(source):
            target.mkdir()
            for entry in source.iterdir():
                _link(entry, target / entry.name, linked)
            shutil.copystat(source, target)
            match_access(target, source)
            sync(target)  # the files have been there before
        else:
            os.link(source, target, follow_symlinks=False)
        linked.add(_identity(source))


def _bring(source: Path, target: Path, linked: set[Identity]) -> None:
    """Move what has come to an old folder since its files were linked, over what it was linked to."""
    if _is_folder(source) and _is_folder(target):
        for entry in source.iterdir():
            _bring(entry, target / entry.name, linked)
        sync(target)
    elif _identity(source) not in linked and (not os.path.lexists(target) or _identity(target) in linked):
        source.replace(target)


def _remove(folder: Path) -> None:
    """Remove a folder, with folders in it that are read-only."""
    for place, _, _ in os.walk(folder):
        with suppress(OSError):
            Path(place).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _identity(path: Path) -> Identity:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _move(new: Path, old: Path, last: str, keep: Keep) -> None:
    """Put what is new into a folder that stays, whose file `last` is missing meanwhile. Folders that are not
    kept go at the end: they say nothing of what lies beside them, and may hold what it takes to try again."""
    names = sorted((entry.name for entry in new.iterdir()), key=lambda name: name == last)
    staying = {*_kept(old, keep, set(names)), *(old / name for name in names), *_partials(old)}
    stale = [entry for entry in old.iterdir() if entry not in staying]
    folders = [entry for entry in stale if _is_folder(entry)]
    (old / last).unlink(missing_ok=True)
    sync(old)
    for entry in stale:
        if entry not in folders:
            discard(entry)
    for name in names:
        if (new / name).is_dir():
            discard(old / name)
        if name == last:
            sync(old)
        (new / name).replace(old / name)
    sync(old)
    for entry in folders:
        discard(entry)
