"""Files appear whole or not at all, and are open to nobody who could not open the file before."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from thresher.errors import UserError
from thresher.files import atomic, lock
from thresher.files.atomic import beside, create_partial, discard, partial_of, replacing, settle
from thresher.files.lock import sole_writer
from thresher.files.swap import replacing_folder
from thresher.folders.locate import locate

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


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_root_has_a_place_beside_it_too():
    assert beside(Path("/")) == Path("/~")
    assert partial_of(beside(Path("/"))) == Path("/.partial-~")


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


def test_a_link_is_replaced_and_not_followed(tmp_path):
    fill(tmp_path / "elsewhere", {"file": "old"})
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    with replacing(tmp_path / "link") as partial:
        partial.write_text("new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "elsewhere" / "file").read_text() == "old"


@pytest.mark.parametrize("wanted", [0o600, 0o640, 0o664, 0o444, 0o400])
def test_who_may_read_a_file_may_read_the_new_one_from_the_start(tmp_path, wanted):
    fill(tmp_path, {"file": "old"})
    (tmp_path / "file").chmod(wanted)
    with replacing(tmp_path / "file") as partial:
        assert partial.stat().st_size == 0
        assert mode(partial) == wanted | 0o600  # whoever writes it opens it by its name
        partial.write_text("new")
    assert files(tmp_path) == {"file": "new"}
    assert mode(tmp_path / "file") == wanted


def test_a_file_is_not_even_created_for_others(tmp_path, monkeypatch):
    """Who has opened it before its mode is set may read what is written later."""
    modes, opened = [], os.open
    monkeypatch.setattr(os, "open", lambda *args: modes.append(args[2:]) or opened(*args))
    create_partial(tmp_path / "file")
    fill(tmp_path, {"file": "old"})
    (tmp_path / "file").chmod(0o640)
    create_partial(tmp_path / "file")
    assert modes == [(0o666,), (0o600,)]


def test_a_note_on_a_file_is_for_those_who_may_read_the_file(tmp_path):
    (tmp_path / "file").touch(0o600)
    for note in ("note", "note"):  # a new one, and one that everybody could read
        with replacing(tmp_path / note, like=tmp_path / "file") as partial:
            assert mode(partial) == 0o600
        assert mode(tmp_path / note) == 0o600
        (tmp_path / note).chmod(0o644)
    with replacing(tmp_path / "note", like=tmp_path / "nothing"):
        pass
    assert mode(tmp_path / "note") == 0o644


def test_a_new_file_is_open_to_whom_the_user_lets_it_be(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "new" / "file"):
            pass
    finally:
        os.umask(before)
    assert mode(tmp_path / "new" / "file") == 0o640


@pytest.mark.parametrize("allowed", [True, False])
def test_the_group_is_the_old_one_or_no_group_gains(tmp_path, monkeypatch, allowed):
    fill(tmp_path, {"file": "old"})
    group = (tmp_path / "file").stat().st_gid
    try:
        os.chown(tmp_path / "file", -1, other := next(iter({*os.getgroups(), 12345} - {group})))
    except OSError:
        pytest.skip("this user cannot give files to another group")
    (tmp_path / "file").chmod(0o664)

    def refused(*_):
        raise PermissionError(errno.EPERM, "no")

    if not allowed:
        monkeypatch.setattr(os, "chown", refused)
    with replacing(tmp_path / "file") as partial:
        assert (partial.stat().st_gid == other) == allowed
        assert mode(partial) == (0o664 if allowed else 0o644)
    assert mode(tmp_path / "file") == (0o664 if allowed else 0o644)


@pytest.mark.parametrize("left", ["link", "file"])
def test_what_lies_where_a_file_is_to_be_written_is_removed(tmp_path, left):
    fill(tmp_path / "elsewhere", {"file": "old"})
    partial = partial_of(tmp_path / "file")
    if left == "link":
        partial.symlink_to(tmp_path / "elsewhere" / "file")
    else:
        partial.touch(0o666)
        (tmp_path / "file").touch(0o600)
    assert create_partial(tmp_path / "file") == partial
    assert partial.read_text() == ""
    assert mode(partial) == (0o600 if left == "file" else mode(tmp_path / "elsewhere" / "file"))
    assert files(tmp_path / "elsewhere") == {"file": "old"}


def test_a_folder_where_a_file_is_to_be_written_stays(tmp_path):
    fill(partial_of(tmp_path / "file"), {"inner": "of the user"})
    with pytest.raises(UserError, match="cannot be written"), replacing(tmp_path / "file"):
        pass
    assert files(tmp_path) == {".partial-file/inner": "of the user"}


@pytest.mark.parametrize("write", [sole_writer, replacing_folder])
def test_names_that_leave_no_room_for_hidden_ones_are_refused(tmp_path, write):
    for letter in ("a", "ä"):
        longest = tmp_path / (letter * (atomic.LONGEST_NAME // len(letter.encode())))
        with write(longest):
            pass
        with (
            pytest.raises(UserError, match=r"20[12] bytes; give a name of 200"),
            write(longest.with_name(f"{longest.name}{letter}")),
        ):
            pass


def test_folders_that_safetensors_cannot_open_are_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"bad\xff")
    with pytest.raises(UserError, match="not UTF-8"), replacing_folder(folder):
        pass
    folder.mkdir()
    with pytest.raises(UserError, match="not UTF-8"):
        locate(folder)


def test_what_only_some_systems_have_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "chown", "pwrite", "pread", "getuid", "fchmod"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    for _ in range(2):
        with sole_writer(tmp_path / "file"), replacing(tmp_path / "file") as partial:
            partial.write_text("new")
        with sole_writer(tmp_path / "out"), replacing_folder(tmp_path / "out") as folder:
            fill(folder, NEW)
    assert files(tmp_path) == {"file": "new"} | {f"out/{name}": text for name, text in NEW.items()}


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
    synced, sync = set(), atomic.sync
    monkeypatch.setattr(atomic, "sync", lambda path: synced.add(path.name) or sync(path))
    settle(tmp_path / "partial", tmp_path / "whole")
    assert synced == {"partial", "a", "b", "c", tmp_path.name}
    assert files(tmp_path) == {"whole/a": "", "whole/b/c": ""}
