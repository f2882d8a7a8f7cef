"""The one exception that means "the input is wrong, and here is what to do", and what others say."""


class UserError(ValueError):
    """Something the caller can mend: a missing file, an unknown column, an unsupported model.

    Its message says what is wrong and what to do. The command line prints it without a
    traceback and exits with code 2.
    """


class TrainingDiverged(ArithmeticError):
    """The loss became NaN or infinite. The command line exits with code 1."""


def first_line(error: Exception) -> str:
    """What an exception says, or its name if it says nothing, as far as the first line end."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def one_line(error: Exception) -> str:
    """All that an exception says, or its name if it says nothing, without line ends."""
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
