"""The one exception that means "the input is wrong, and here is what to do"."""


class UserError(ValueError):
    """Something the caller can mend: a missing file, an unknown column, an unsupported model.

    Its message says what is wrong and what to do. The command line prints it without a
    traceback and exits with code 2.
    """


class TrainingDiverged(ArithmeticError):
    """The loss became NaN or infinite. The command line exits with code 1."""
