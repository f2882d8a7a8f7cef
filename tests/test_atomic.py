"""Files and folders appear whole or not at all, and have one writer at a time."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from thresher import atomic
from thresher.atomic import discard, partial_of, replacing, replacing_folder, settle, sole_writer, sweep
from thresher.errors import UserError

forked = multiprocessing.get_context("fork")
OLD = {"config.json": "old", "weights": "old", "report.json": "old", "mine.txt": "old"}
NEW = {"config.json": "new", "weights": "new"}


def fill(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def files(folder: Path) -> dict[str, str]:
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_text() for path in found if path.is_file()}


def keep(name: str) -> bool:
    return name not in ("report.json", "checkpoints")


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


def test_the_root_has_a_place_beside_it_too():
    assert atomic._beside(Path("/")) == Path("/~")
    assert partial_of(atomic._beside(Path("/"))) == Path("/.partial-~")


@pytest.mark.parametrize("place", ["file/out", "/proc/nothing/out", "/dev/null/out"])
def test_where_nothing_can_be_written_there_are_words(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for writer in (sole_writer, replacing, replacing_folder):
        with pytest.raises(UserError, match=f"{place}.*cannot be written"), writer(Path(place)):
            pass


@pytest.mark.parametrize("inside", [True, False])
def test_a_full_disk_that_shows_late_leaves_the_old_file(tmp_path, monkeypatch, inside):
    def full(*_):
        raise OSError(errno.ENOSPC if inside else errno.EINVAL, "no room")

    fill(tmp_path, {"file": "old"})
    monkeypatch.setattr(os, "fsync", full)
    if not inside:  # a file system that knows no syncing
        with replacing(tmp_path / "file") as partial:
            partial.write_text("new")
        assert files(tmp_path) == {"file": "new"}
        return
    with pytest.raises(UserError, match="no room"), replacing(tmp_path / "file") as partial:
        partial.write_text("new")
    assert files(tmp_path) == {"file": "old"}


def test_what_is_no_file_is_written_itself(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with sole_writer(tmp_path / "pipe"), replacing(tmp_path / "pipe") as partial:
        assert partial == tmp_path / "pipe"
    with replacing(Path("/dev/stdout")) as partial:
        assert partial == Path("/dev/stdout")
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_link_to_a_file_stays(tmp_path):
    fill(tmp_path / "elsewhere", {"file": "old"})
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    with replacing(tmp_path / "link") as partial:
        partial.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert files(tmp_path / "elsewhere") == {"file": "new"}


def as_it_is(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    """Where folders can be exchanged, they are."""


def cannot_exchange(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda *_: False)


def is_mount(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda self: self == out)


def parent_is_read_only(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != out.parent)


def stands_there(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    monkeypatch.chdir(out / "inner")


WAYS = [as_it_is, cannot_exchange, is_mount, parent_is_read_only, stands_there]


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_is_replaced_with_what_is_to_stay_in_it(tmp_path, monkeypatch, way):
    out = fill(tmp_path / "out", {**OLD, "checkpoints/1/state": "old", "inner/mine.txt": "old"})
    (out / "link").symlink_to("mine.txt")
    before = (out / "mine.txt").stat()
    way(monkeypatch, out)
    with pytest.raises(TypeError), replacing_folder(out, keep=keep) as folder:
        fill(folder, NEW)["nothing"]
    assert files(out)["report.json"] == files(out)["checkpoints/1/state"] == "old"
    with sole_writer(out), replacing_folder(out, keep=keep) as folder:
        fill(folder, NEW)
    assert files(out) == NEW | {"mine.txt": "old", "inner/mine.txt": "old", "link": "old"}
    assert (out / "link").is_symlink()
    assert (out / "mine.txt").stat().st_ino == before.st_ino  # who writes to it writes to it still
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class Killed(BaseException):
    """Nothing is done behind it, not even what is in `finally`."""


@pytest.mark.parametrize("way", WAYS[:3])
@pytest.mark.parametrize("over", [True, False])
def test_a_crash_leaves_the_old_folder_or_the_new_one_or_what_it_takes_to_go_on(
    tmp_path, monkeypatch, way, over
):
    """At every file that is renamed or removed."""
    operations = {Path: ("replace", "rename", "unlink"), atomic.shutil: ("rmtree",)}
    monkeypatch.setattr(os, "fsync", lambda file: None)
    old = OLD if over else {}
    new = NEW | ({"mine.txt": "old"} if over else {})
    for at in range(1, 100):
        out = fill(tmp_path / str(at) / "out", {**old, "checkpoints/1/state": "old"})
        counted = []

        def counting(does, counted=counted, at=at):
            def counts(*args, **kwargs):
                counted.append(1)
                if len(counted) >= at:
                    raise Killed
                return does(*args, **kwargs)

            return counts

        with pytest.MonkeyPatch.context() as patch:
            way(patch, out)
            try:
                with replacing_folder(out, keep=keep) as folder:
                    fill(folder, NEW)
                    for owner, names in operations.items():
                        for name in names:
                            patch.setattr(owner, name, counting(getattr(owner, name)))
            except Killed:
                pass
            else:
                break
        left = {name: text for name, text in files(out).items() if "/" not in name}
        goes_on = files(out).get("checkpoints/1/state") == "old"
        if "config.json" not in left or left == old:
            assert goes_on, at
        else:
            assert left == new, at
        with pytest.MonkeyPatch.context() as patch:
            way(patch, out)
            sweep(out)
            with replacing_folder(out, keep=keep) as folder:
                fill(folder, NEW)
        assert files(out) == new
        assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert 1 < at < 99


def test_what_is_removed_in_part_has_another_name(tmp_path, monkeypatch):
    fill(tmp_path / "checkpoint-1", NEW)
    with monkeypatch.context() as patch:
        patch.setattr(atomic.shutil, "rmtree", lambda *_, **__: None)
        discard(tmp_path / "checkpoint-1")
        assert not list(tmp_path.glob("checkpoint-*"))
        fill(tmp_path / "checkpoint-1", NEW)
    discard(tmp_path / "checkpoint-1")
    discard(tmp_path / "checkpoint-1")
    assert not list(tmp_path.iterdir())


def test_settling_syncs_all_that_a_folder_holds(tmp_path, monkeypatch):
    fill(tmp_path / "partial", {"a": "", "b/c": ""})
    synced, sync = set(), atomic._sync
    monkeypatch.setattr(atomic, "_sync", lambda path: synced.add(path.name) or sync(path))
    settle(tmp_path / "partial", tmp_path / "whole")
    assert synced == {"partial", "a", "b", "c", tmp_path.name}
    assert files(tmp_path) == {"whole/a": "", "whole/b/c": ""}
