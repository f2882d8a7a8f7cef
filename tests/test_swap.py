"""Folders appear whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from tests.test_atomic import NEW, files, fill, mode
from thresher.files import lock, swap
from thresher.files.lock import sole_writer
from thresher.files.swap import replacing_folder, sweep

forked = multiprocessing.get_context("fork")
OLD = {"config.json": "old", "weights": "old", "report.json": "old", "mine.txt": "old"}


def keep(name: str) -> bool:
    return name not in ("report.json", "checkpoints")


def as_it_is(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    """Where folders can be exchanged, they are."""


def cannot_exchange(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    monkeypatch.setattr(swap, "_exchange", lambda *_: False)


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
    operations = {Path: ("replace", "rename", "unlink"), shutil: ("rmtree",)}
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


def meanwhile(monkeypatch: pytest.MonkeyPatch, does) -> None:
    """Have something happen just before two folders are exchanged."""
    exchanged = swap._swap

    def late(one: Path, other: Path) -> None:
        if (other / "config.json").exists():
            does()
        exchanged(one, other)

    monkeypatch.setattr(swap, "_swap", late)


def test_what_comes_to_a_folder_while_it_is_replaced_stays(tmp_path, monkeypatch):
    out = fill(
        tmp_path / "out", OLD | {"inner/deep/mine.txt": "old", "gone.txt": "old", "checkpoints/1": "old"}
    )

    def others_work() -> None:
        late = {
            "late.txt": "late",
            "inner/late.txt": "late",
            "inner/deep/late.txt": "late",
            "new/late": "late",
        }
        fill(
            out, late | {"report.json": "late", "weights": "late", "checkpoints/2": "late", "edited": "late"}
        )
        os.utime(out / "edited", (0, 0))
        (out / "edited").replace(out / "mine.txt")  # as editors save
        (out / "link").symlink_to("nowhere")

    meanwhile(monkeypatch, others_work)
    with replacing_folder(out, keep=lambda name: keep(name) and name != "weights") as folder:
        fill(folder, NEW | {"new/mine.txt": "new"})
        fill(out, {"early.txt": "early", "inner/early.txt": "early"})
        (out / "gone.txt").unlink()
    assert files(out) == NEW | {
        "early.txt": "early",
        "inner/early.txt": "early",
        "inner/deep/mine.txt": "old",
        "inner/late.txt": "late",
        "inner/deep/late.txt": "late",
        "late.txt": "late",
        "mine.txt": "late",
        "new/mine.txt": "new",
    }
    assert os.readlink(out / "link") == "nowhere"
    assert os.listdir(tmp_path) == ["out"]


def test_what_goes_while_a_folder_is_replaced_does_no_harm(tmp_path, monkeypatch):
    out, link = fill(tmp_path / "out", OLD | {"passing/1": ""}), os.link
    monkeypatch.setattr(
        os, "link", lambda *args, **how: shutil.rmtree(out / "passing", True) or link(*args, **how)
    )
    monkeypatch.setattr(swap, "_move", None)
    with replacing_folder(out, keep=keep) as folder:
        fill(folder, NEW)
    assert files(out).items() >= (NEW | {"mine.txt": "old"}).items()


@pytest.mark.parametrize("way", WAYS)
def test_who_may_read_a_folder_and_its_files_may_read_the_new_ones(tmp_path, monkeypatch, way):
    out = fill(tmp_path / "out", OLD | {"inner/secret": "old", "kept/mine": "old"})
    modes = {
        ".": 0o750,
        "weights": 0o600,
        "inner": 0o700,
        "inner/secret": 0o640,
        "kept": 0o711,
        "mine.txt": 0o604,
    }
    for name, wanted in modes.items():
        (out / name).chmod(wanted)
    way(monkeypatch, out)
    with replacing_folder(out) as folder:
        assert mode(folder) == 0o700
        fill(folder, NEW | {"inner/secret": "new", "more": "new"})
    assert {name: mode(out / name) for name in modes} == modes
    assert mode(out / "more") == mode(fill(tmp_path / "plain", {"file": ""}) / "file")


@pytest.mark.parametrize("there", [True, False])
def test_others_may_read_a_new_folder_when_it_is_whole(tmp_path, there):
    out = tmp_path / "out"
    if there:
        out.mkdir(0o700)
    with replacing_folder(out) as folder:
        assert mode(folder) == 0o700
        fill(folder, NEW)
    fill(tmp_path / "plain", {})
    assert mode(out) == (0o700 if there else mode(tmp_path / "plain"))


@pytest.mark.parametrize("lacks", ["exchange", "links"])
def test_no_file_is_copied_where_folders_cannot_be_exchanged(tmp_path, monkeypatch, lacks):
    def unknown(*_, **__):
        raise OSError(95, "not here")

    out, linked = fill(tmp_path / "out", OLD | {"inner/mine.txt": "old"}), []
    before = (out / "inner" / "mine.txt").stat()
    if lacks == "exchange":
        monkeypatch.setattr(os, "link", lambda *args, **_: linked.append(args))
        monkeypatch.setattr(swap, "_swap", unknown)
    else:
        monkeypatch.setattr(os, "link", unknown)
    for copies in ("copy2", "copyfile", "copyfileobj"):
        monkeypatch.setattr(shutil, copies, lambda *args, **_: linked.append(args))
    with replacing_folder(out, keep=keep) as folder:
        fill(folder, NEW)
    assert not linked
    assert files(out) == NEW | {"mine.txt": "old", "inner/mine.txt": "old"}
    assert (out / "inner" / "mine.txt").stat().st_ino == before.st_ino
    assert os.listdir(tmp_path) == ["out"]


def test_only_what_is_new_is_synced(tmp_path, monkeypatch):
    out, synced, sync = fill(tmp_path / "out", OLD | {"inner/mine.txt": "old"}), [], os.fsync

    def noted(file: int) -> None:
        synced.append(os.fstat(file).st_ino)
        sync(file)

    monkeypatch.setattr(os, "fsync", noted)
    with replacing_folder(out, keep=keep) as folder:
        fill(folder, NEW)
    places = {
        path.relative_to(out).as_posix() for path in [out, *out.rglob("*")] if path.stat().st_ino in synced
    }
    assert places == {".", "inner", *NEW}


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("there", [True, False])
def test_of_two_who_save_at_the_same_time_both_can(tmp_path, monkeypatch, way, there):
    """As the ranks of a training run do: nobody is refused, and one folder stays."""
    out = fill(tmp_path / "out", OLD) if there else tmp_path / "out"
    way(monkeypatch, out)
    all_begun, all_filled, failed = threading.Barrier(4), threading.Barrier(4), []

    def save(rank: int) -> None:
        try:
            with replacing_folder(out) as folder:
                all_begun.wait(30)
                fill(folder, {"config.json": f"{rank}", "weights": f"{rank}"})
                all_filled.wait(30)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=save, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    found = files(out)
    assert found.keys() == (OLD if there else NEW).keys()
    if way is as_it_is:
        assert found["config.json"] == found["weights"] in ("0", "1", "2", "3")
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_that_another_writer_takes_meanwhile_is_not_missed(tmp_path, monkeypatch):
    """Between the look whether it is there and the look who may read it."""
    out, exists = fill(tmp_path / "out", OLD), Path.exists

    def taken(path, **how):
        found = exists(path, **how)
        if path == out / "config.json":
            path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "exists", taken)
    with replacing_folder(out) as folder:
        fill(folder, NEW)
    assert files(out).items() >= NEW.items()


def write_and_wait(out: Path, begun, never) -> None:
    with replacing_folder(out) as folder:
        fill(folder, NEW)
        begun.wait()
        never.wait()


def test_what_a_killed_run_left_goes_and_what_is_written_stays(tmp_path):
    out = tmp_path / "out"
    others = [".partial-out.tsv", ".partial-out.12.34", ".partial-other.12", ".partial-out.12x"]
    for name in others:
        fill(tmp_path / name, NEW)
    (tmp_path / ".partial-out.34").touch()
    writers = []
    for _ in range(2):
        begun, never = forked.Barrier(2), forked.Barrier(2)
        writers.append(forked.Process(target=write_and_wait, args=(out, begun, never)))
        writers[-1].start()
        begun.wait(30)

    def written() -> set[str]:
        return {path.name for path in tmp_path.iterdir()} - {*others, ".partial-out.34", "out"}

    assert len(written()) == 2
    os.kill(writers[0].pid, signal.SIGKILL)
    writers[0].join()
    with replacing_folder(out) as folder:
        fill(folder, NEW)
    assert len(written()) == 1
    sweep(out)
    assert len(written()) == 1
    os.kill(writers[1].pid, signal.SIGKILL)
    writers[1].join()
    sweep(out)
    assert not written()
    assert {path.name for path in tmp_path.iterdir()} == {*others, ".partial-out.34", "out"}


def test_a_folder_that_is_saved_to_in_a_partial_one_goes_with_it(tmp_path):
    with replacing_folder(tmp_path / "out") as outer:
        fill(outer, {"mine.txt": "mine"})
        for _ in range(2):
            with replacing_folder(outer) as inner:
                fill(inner, NEW)
                assert inner.is_relative_to(outer)
        assert files(outer) == NEW | {"mine.txt": "mine"}
    assert files(tmp_path) == {f"out/{name}": text for name, text in (NEW | {"mine.txt": "mine"}).items()}


def test_a_folder_that_comes_just_before_is_replaced(tmp_path, monkeypatch):
    """As that of another rank of a training run."""
    out, rename = tmp_path / "out", Path.rename

    def late(path: Path, target: Path) -> Path:
        if target == out and not out.exists():
            fill(out, OLD)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    with replacing_folder(out, keep=keep) as folder:
        fill(folder, NEW)
    assert files(out) == NEW | {"mine.txt": "old"}
    assert os.listdir(tmp_path) == ["out"]


def test_where_nobody_can_tell_who_writes_only_the_holder_sweeps(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    fill(tmp_path / ".partial-out.12", NEW)
    with replacing_folder(tmp_path / "out") as folder:
        fill(folder, NEW)
    assert (tmp_path / ".partial-out.12").exists()
    sweep(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_is_read_only_stays_so_and_leaves_nothing_behind(tmp_path, monkeypatch):
    """Without privileges, its entries cannot be removed."""
    out = fill(tmp_path / "out", OLD | {"inner/mine.txt": "old"})
    (out / "inner").chmod(0o555)
    removed = shutil.rmtree

    def only_writable(folder: Path, **how) -> None:
        if all(mode(path) & 0o200 for path in Path(folder).rglob("*") if path.is_dir()):
            removed(folder, **how)

    monkeypatch.setattr(shutil, "rmtree", only_writable)
    with replacing_folder(out) as folder:
        fill(folder, NEW)
    assert files(out) == OLD | NEW | {"inner/mine.txt": "old"}
    assert mode(out / "inner") == 0o555
    assert os.listdir(tmp_path) == ["out"]
