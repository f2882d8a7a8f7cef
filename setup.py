"""The one part that pyproject.toml cannot say: the native code, built where there is a compiler."""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("thresher/native/csrc")

setup(
    ext_modules=[
        Extension(  # no Python module, but a plain library: thresher/native/__init__.py opens it
            "thresher.native._library",
            sorted(str(file) for file in SOURCES.glob("*.cpp")),
            depends=sorted(str(file) for file in SOURCES.glob("*.h")),
            extra_compile_args=[
                "-std=c++17",
                "-O3",
                "-g0",
                "-Wno-maybe-uninitialized",
                "-Wno-uninitialized",
                "-Wno-psabi",
            ],
            language="c++",
            optional=True,  # without it everything works, by torch's own operations
        )
    ]
)
