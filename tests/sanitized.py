"""`make sanitize`: the native code under the sanitizers of the compiler, in `build/sanitized`.

One build has those for addresses and for undefined behaviour, another the one for threads. Both run
`sanitized.cpp`, random problems for every function. The first then takes the place of the library in tests
that call it from Python; as a plugin of pytest, this file puts it there. Any report makes the exit code 1.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = [*sorted((HERE.parent / "thresher/native/csrc").glob("*.cpp")), HERE / "sanitized.cpp"]
BUILD = HERE.parent / "build/sanitized"
COMPILER = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-fno-omit-frame-pointer", "-Wno-psabi", "-D_GLIBCXX_ASSERTIONS"]
ADDRESS, THREAD = "address,undefined,float-divide-by-zero,float-cast-overflow", "thread"
# The tests that call native code, but for those of long texts, of memory, and of other libraries.
TESTS = ["test_native.py", "test_native_dropout.py", "test_native_linear.py", "test_stage.py", "test_int8.py"]
TESTS += ["test_score.py", "test_layers.py"]
LEFT_OUT = "not (square_matrix or more_heads or long_text or torch_compile or onednns_reference)"
LIBRARY = "THRESHER_SANITIZED"  # names the library to pytest
OPTIONS = {
    "ASAN_OPTIONS": "allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def pytest_configure() -> None:
    """Put the library that was built for this in the place of the one that thresher opened."""
    from thresher import native

    native.library = native._open(Path(os.environ[LIBRARY]))
    assert native.library is not None
    native.use()


def main() -> int:
    """Build and run all."""
    if shutil.which(COMPILER) is None:
        sys.exit(f"There is no {COMPILER}: install g++, or name another of its versions by CXX.")
    if lacks := [name for name in ("asan", "ubsan", "tsan") if not Path(_library(f"lib{name}.so")).exists()]:
        sys.exit(
            f"{COMPILER} has no lib{', lib'.join(lacks)}: install the package of your system that has it."
        )
    for kinds, problems in ((ADDRESS, "500"), (THREAD, "200")):
        print(f"Compiling with -fsanitize={kinds}", flush=True)
        place = BUILD / kinds.split(",")[0]
        _build(kinds, place)
        _run([str(place / "driver"), problems])
    library = str(BUILD / "address/library.so")
    # The sanitizer must be loaded first. Python and torch keep memory to the end, which is no leak of ours.
    preload = " ".join(_library(name) for name in ("libasan.so", "libstdc++.so"))
    leaks = OPTIONS["ASAN_OPTIONS"] + ":detect_leaks=0"
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "-p", "tests.sanitized", "-k", LEFT_OUT]
    tests = [str(HERE / test) for test in TESTS]
    _run([*pytest, *tests], **{LIBRARY: library, "LD_PRELOAD": preload, "ASAN_OPTIONS": leaks})
    print("No report.")
    return 0


def _build(kinds: str, place: Path) -> None:
    """The program of random problems, and the library."""
    place.mkdir(parents=True, exist_ok=True)
    flags = [*FLAGS, f"-fsanitize={kinds}", "-fno-sanitize-recover=all"]

    def compiled(source: Path) -> str:
        target = place / (source.name + ".o")
        _run([COMPILER, *flags, "-c", str(source), "-o", str(target)])
        return str(target)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        *objects, driver = pool.map(compiled, SOURCES)
    _run([COMPILER, *flags, *objects, driver, "-pthread", "-o", str(place / "driver")])
    _run([COMPILER, *flags, "-shared", *objects, "-pthread", "-o", str(place / "library.so")])


def _library(name: str) -> str:
    """Where the compiler finds a library."""
    found = subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def _run(command: list[str], **environment: str) -> None:
    # The sanitizers of older compilers do not start where the kernel scatters memory widely.
    still = [setarch, platform.machine(), "-R"] if (setarch := shutil.which("setarch")) else []
    done = subprocess.run([*still, *command], cwd=HERE.parent, env=os.environ | OPTIONS | environment)
    if done.returncode:
        sys.exit(f"Failed with code {done.returncode}: {' '.join(command)}")


if __name__ == "__main__":
    sys.exit(main())
