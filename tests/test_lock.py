"""One writer at a time."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.test_atomic import NEW, files, fill
from thresher.errors import UserError
from thresher.files import lock
from thresher.files.lock import sole_writer
from thresher.files.swap import replacing_folder

forked = multiprocessing.get_context("fork")


def hold(path: Path, start, others_tried, won) -> None:
    start.wait()
    try:
        with sole_writer(path):
            won.put((os.getpid(), ""))
            others_tried.wait()
    except UserError as error:
        won.put((os.getpid(), str(error)))
        others_tried.wait()


@pytest.mark.parametrize("attempt", range(6))
def test_of_many_who_start_at_once_one_writes(tmp_path, attempt):
    """In half of the attempts a run that was killed has left its lock file."""
    many, path = 6, tmp_path / "not" / "yet" / "out"
    if attempt % 2:
        fill(path.parent, {".out.lock": "process 1 on elsewhere (nobody)"})
    start, others_tried, won = forked.Barrier(many), forked.Barrier(many), forked.Queue()
    processes = [forked.Process(target=hold, args=(path, start, others_tried, won)) for _ in range(many)]
    for process in processes:
        process.start()
    said = dict(won.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    (winner,) = [process for process, error in said.items() if not error]
    for process, error in said.items():
        if process != winner:
            assert f"{path} is being written by process {winner} on {socket.gethostname()}" in error
    assert list(path.parent.iterdir()) == []


def test_the_lock_of_a_killed_run_is_no_obstacle(tmp_path):
    start, never, won = forked.Barrier(1), forked.Barrier(2), forked.Queue()
    process = forked.Process(target=hold, args=(tmp_path / "out", start, never, won))
    process.start()
    assert won.get(timeout=30) == (process.pid, "")
    with pytest.raises(UserError, match=f"process {process.pid}"), sole_writer(tmp_path / "out"):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / ".out.lock").exists()
    with sole_writer(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_threads_are_writers_too(tmp_path):
    said = []

    def other() -> None:
        try:
            with sole_writer(tmp_path / "out"):
                said.append("")
        except UserError as error:
            said.append(str(error))

    with sole_writer(tmp_path / "out"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    other()
    assert "is being written by process" in said[0]
    assert said[1] == ""


@pytest.mark.parametrize("name", ["out", "with blank ü ☃", "a/b/../c", ".", "../here", "link", "deep/link"])
def test_a_path_is_one_however_it_is_written(tmp_path, monkeypatch, name):
    (tmp_path / "here" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for link in ("link", "deep/link"):
        Path(link).symlink_to(tmp_path / "target", target_is_directory=True)
    before = sorted(tmp_path.rglob("*"))
    with sole_writer(Path(name)):
        for same in (Path(name), Path(name).absolute(), Path(name).resolve()):
            with pytest.raises(UserError, match="is being written by"), sole_writer(same):
                pass
        with sole_writer(Path("another")):
            pass
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name not in "ac"] == before
    with sole_writer(Path(name)), replacing_folder(Path(name)) as folder:
        fill(folder, NEW)
    assert files(Path(name).resolve()).items() >= NEW.items()
    assert os.path.samefile(".", tmp_path / "here")  # a shell that stands there stands there still


def of_another_user(monkeypatch: pytest.MonkeyPatch, file: Path, sticky: bool) -> None:
    """A file that this user can read only, and not remove where its folder is sticky."""
    opened, unlink = os.open, Path.unlink

    def read_only(path, flags, *mode, **how):
        if Path(path) == file and file.exists() and flags & (os.O_RDWR | os.O_CREAT):
            raise PermissionError(errno.EACCES, "of another user")
        return opened(path, flags, *mode, **how)

    def unremovable(path, *args, **kwargs):
        if path == file and sticky:
            raise PermissionError(errno.EPERM, "of another user")
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(Path, "unlink", unremovable)


@pytest.mark.parametrize("sticky", [True, False])
def test_what_a_killed_run_of_another_user_left_is_no_obstacle(tmp_path, monkeypatch, sticky):
    file = fill(tmp_path, {".out.lock": "process 1 on elsewhere"}) / ".out.lock"
    with monkeypatch.context() as patch:
        of_another_user(patch, file, sticky)
        with sole_writer(tmp_path / "out"):
            with open(file) as other, pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert (f"process {os.getpid()} on" in file.read_text()) == (not sticky)
    assert file.exists() == sticky


def test_a_run_of_another_user_is_not_disturbed(tmp_path, monkeypatch):
    file = fill(tmp_path, {".out.lock": "process 1 on elsewhere"}) / ".out.lock"
    with open(file) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        of_another_user(monkeypatch, file, sticky=False)
        with pytest.raises(UserError, match="by process 1 on elsewhere"), sole_writer(tmp_path / "out"):
            pass
    assert file.read_text() == "process 1 on elsewhere"


def test_a_place_where_nobody_may_write_is_refused_in_words(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, "not here")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(UserError, match=r"cannot be written.*not here"), sole_writer(tmp_path / "out"):
        pass


def test_files_that_never_seem_the_same_are_held_all_the_same(tmp_path, monkeypatch):
    """On some network file systems inode numbers change from one look to the next."""
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)
    with sole_writer(tmp_path / "out"):
        assert f"process {os.getpid()} on" in (tmp_path / ".out.lock").read_text()
        with pytest.raises(UserError, match="is being written by"), sole_writer(tmp_path / "out"):
            pass


def test_a_link_in_place_of_the_lock_file_leads_to_no_writing_elsewhere(tmp_path):
    fill(tmp_path, {"mine": "mine"})
    (tmp_path / ".out.lock").symlink_to("mine")
    with pytest.raises(UserError, match="cannot be written"), sole_writer(tmp_path / "out"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_without_locks_the_file_says_who_writes(tmp_path, monkeypatch):
    removed, unlink, close, closed = [], Path.unlink, os.close, []
    monkeypatch.setattr(lock, "fcntl", None)
    with sole_writer(tmp_path / "out"):
        assert f"process {os.getpid()} on" in (tmp_path / ".out.lock").read_text()
        monkeypatch.setattr(os, "close", lambda file: closed.append(file) or close(file))
        monkeypatch.setattr(Path, "unlink", lambda path: removed.append(len(closed)) or unlink(path))
    assert removed == [1]  # what is open cannot be removed there
    assert list(tmp_path.iterdir()) == []
