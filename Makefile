# `make demo` and `make test` do all their own set-up, in .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# Compiling all that is installed takes longer than installing it. The first run compiles what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv demo test sanitize emulate lint format clean

help:  ## Say what there is to make
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

venv: .venv/dev.stamp  ## Set up .venv with all that development needs

demo: .venv/demo.stamp  ## Run the demonstration
	$(BIN)/thresher demo

test: lint  ## Check style and types, and run all tests
	$(BIN)/python -m pytest -n auto --dist worksteal

sanitize: .venv/dev.stamp  ## Run the native code under the compiler's sanitizers
	$(BIN)/python tests/sanitized.py

emulate: .venv/dev.stamp  ## Run the native code for ARM in an emulator
	$(BIN)/python tests/emulated.py

lint: .venv/dev.stamp  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev.stamp  ## Sort imports and lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove .venv, caches and build leftovers; runs/ and demo/ stay
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv .venv

# The stamps are redone when dependencies or native code change. What development needs holds what the demo needs.
BUILT_FROM := pyproject.toml setup.py constraints.txt $(wildcard thresher/native/csrc/*)

.venv/demo.stamp: $(BUILT_FROM) | $(BIN)/python
	$(INSTALL) -e ".[demo]"
	@touch $@

.venv/dev.stamp: $(BUILT_FROM) | $(BIN)/python
	$(INSTALL) -e ".[demo,dev]"
	@touch .venv/demo.stamp $@
