"""Shared by all tests: one thread, a quiet transformers, reproducible hypothesis, the device."""

import gc
import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of commands, too, which run in processes of their own

import pytest
import torch
import transformers
from hypothesis import HealthCheck, settings

from tests.cases import STILL, using
from tests.tiny import DEVICE
from thresher import native

# The tensors here are tiny: on a busy machine threads cost ten times what they save.
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

settings.register_profile(
    "thresher", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("thresher")


ANYWHERE = {"test_conformance.py", "test_routes.py"}
"""Tests that run on the device that THRESHER_DEVICE names, say cuda. All others are of the CPU."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if DEVICE.type != "cpu" and item.path.name not in ANYWHERE:
            item.add_marker(pytest.mark.skip(reason=f"runs on CPUs alone, and THRESHER_DEVICE is {DEVICE}"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="crash commands at every operation on files (test_crashes.py), and call models from threads "
        "2,000 times (test_threads.py)",
    )


def pytest_collection_finish() -> None:
    """Leave what collecting made out of every later collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Every test draws the same numbers, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _dropout_again():
    """Models that `soften` left without dropout end with the test."""
    yield
    STILL.close()


@pytest.fixture(params=native.INSTRUCTIONS, scope="module")
def instructions(request):
    """Native code with each set of instructions that the machine has."""
    with using(request.param):
        yield request.param


@pytest.fixture(params=["fp32", "bf16", "int8"])
def precision(request, instructions):
    """A precision in which these instructions have whole stages."""
    if not native.has_stages(request.param):
        pytest.skip(f"{instructions} has no {request.param}")
    return request.param


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def transformers_log(caplog):
    """What transformers says from warnings up, as ``transformers_log.text``."""
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_propagation()
    with caplog.at_level("WARNING", logger="transformers"):
        yield caplog
    transformers.logging.disable_propagation()
    transformers.logging.set_verbosity_error()
