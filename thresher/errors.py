"""The one exception that means "the input is wrong, and here is what to do", and what others say."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something the caller can mend: a missing file, an unknown column, an unsupported model.

    Its message says what is wrong and what to do, and names parameters in backticks. The command
    line calls them by their options, prints the message without a traceback and exits with code 2.
    """


class TrainingDiverged(ArithmeticError):
    """The loss became NaN or infinite. The command line exits with code 1."""


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file or folder where the system refuses to write it: a full disk, no permission, no folder.
    PyTorch and safetensors say so in exceptions of their own.

    Raises
    ------
    UserError
        Instead of such an error, in the ``with`` block.
    """
    try:
        yield
    except Exception as error:
        torch = isinstance(error, RuntimeError) and re.search(
            "inline_container|PytorchStreamWriter", str(error)
        )
        if not (isinstance(error, OSError) or type(error).__name__ == "SafetensorError" or torch):
            raise
        raise UserError(
            f"{os.fspath(path)}: cannot be written ({one_line(error)}); make room or choose another path"
        ) from error


def first_line(error: Exception) -> str:
    """What an exception says, or its name if it says nothing, as far as the first line end."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def one_line(error: Exception) -> str:
    """All that an exception says, or its name if it says nothing, without line ends."""
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
