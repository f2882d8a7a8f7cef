"""The one part that pyproject.toml cannot say: the native attention, built where there is a compiler."""

from setuptools import Extension, setup

SOURCES = "thresher/attention/csrc"

setup(
    ext_modules=[
        Extension(  # no Python module, but a plain library: thresher/attention/native.py opens it
            "thresher.attention._native",
            [f"{SOURCES}/native.cpp"],
            depends=[f"{SOURCES}/strip.h", f"{SOURCES}/amx.h"],
            extra_compile_args=["-std=c++17", "-O3", "-g0", "-Wno-maybe-uninitialized", "-Wno-psabi"],
            language="c++",
            optional=True,  # without it everything works, by torch's own operations
        )
    ]
)
