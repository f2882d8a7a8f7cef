"""The one part that pyproject.toml cannot say: the native code, built where there is a compiler."""

from setuptools import Extension, setup

SOURCES = "thresher/native/csrc"

setup(
    ext_modules=[
        Extension(  # no Python module, but a plain library: thresher/native/__init__.py opens it
            "thresher.native._library",
            [f"{SOURCES}/attention.cpp"],
            depends=[f"{SOURCES}/{name}.h" for name in ("team", "tiles", "attention_strip", "attention_amx")],
            extra_compile_args=["-std=c++17", "-O3", "-g0", "-Wno-maybe-uninitialized", "-Wno-psabi"],
            language="c++",
            optional=True,  # without it everything works, by torch's own operations
        )
    ]
)
