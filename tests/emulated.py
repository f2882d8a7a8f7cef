"""`make emulate`: the native code for processors that are not at hand, in `build/emulated`.

A cross compiler builds `exact.cpp`, which compares with sums in double, and `sanitized.cpp`, which solves
random problems, for 64-bit ARM; qemu runs both. AVX-VNNI is built in the form that AVX-512 has of it, and
runs here where there is AVX-512 VNNI.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = sorted((HERE.parent / "thresher/native/csrc").glob("*.cpp"))
BUILD = HERE.parent / "build/emulated"
FLAGS = ["-std=c++17", "-O2", "-Wno-psabi", "-pthread"]
CROSS, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


def main() -> int:
    """Build and run all."""
    if lacks := [name for name in (CROSS, EMULATOR) if shutil.which(name) is None]:
        missing = " and no ".join(lacks)
        print(f"There is no {missing}: install g++-aarch64-linux-gnu and qemu-user.", file=sys.stderr)
        return 2
    BUILD.mkdir(parents=True, exist_ok=True)
    emulated = [EMULATOR, "-cpu", "max"]
    for program, count in (("exact", ()), ("sanitized", ("20",))):
        run([*emulated, built(program, CROSS, "-static"), *count])
    if platform.machine() == "x86_64":
        run([built("exact", "g++", "-DTHRESHER_EVEX")])
    return 0


def built(program: str, compiler: str, *flags: str) -> str:
    """The program of that name in this folder, for the machines of a compiler."""
    target = BUILD / f"{program}-{compiler}"
    run([compiler, *FLAGS, *flags, *map(str, SOURCES), str(HERE / f"{program}.cpp"), "-o", str(target)])
    return str(target)


def run(command: list[str]) -> None:
    print(" ".join(command), flush=True)
    if code := subprocess.run(command, cwd=HERE.parent).returncode:
        sys.exit(f"Failed with code {code}.")


if __name__ == "__main__":
    sys.exit(main())
