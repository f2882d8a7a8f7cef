"""Imported by the server that forks, once: what every run would import and compile is then there already."""

from __future__ import annotations

import gc
import os
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import matplotlib.backends.backend_agg
import matplotlib.font_manager

from tests import toy
from tests.crash import child
from tests.test_predict_file import save
from thresher.show import figures, tables
from thresher.training import calibrate, recipes

LATE = (calibrate, figures, matplotlib, recipes, tables)  # what commands import when they need it

with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as null:
    folder = Path(name)
    words = ["predict", save(folder), "--input", str(toy.write_tsv(folder / "in.tsv", 4))]
    with redirect_stdout(null), redirect_stderr(null):
        child.cli.app([*words, "--output", str(folder / "out.parquet")], standalone_mode=False)
gc.collect()
gc.freeze()  # a collection in a forked process would copy all that it looks at
