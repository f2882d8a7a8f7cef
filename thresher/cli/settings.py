"""Training settings as options: names, types, defaults and help are those of `TrainingSettings`."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_type_hints

import typer

from thresher.training.settings import TrainingSettings

COMMON = (
    "batch_size",
    "accumulation",
    "weight_decay",
    "warmup",
    "evaluations",
    "metric",
    "dropout",
    "seed",
    "precision",
)
"""What can be set about every training."""


def collecting(command: Callable[..., None]) -> Callable[..., None]:
    """A command as typer shall call it, with an option for each setting that it takes.

    Parameters
    ----------
    command : callable
        With a parameter ``settings: Annotated[TrainingSettings, names]``: those with these names are options,
        all others have their defaults. A command without it is given back.
    """
    signature = inspect.signature(command, eval_str=True)
    if "settings" not in signature.parameters:
        return command
    _, names = get_args(signature.parameters["settings"].annotation)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(settings=TrainingSettings(**{name: given.pop(name) for name in names}), **given)

    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += map(_option, names) if parameter.name == "settings" else [parameter]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def _option(name: str) -> inspect.Parameter:
    """The option of a setting."""
    kind = get_type_hints(TrainingSettings)[name]
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=getattr(TrainingSettings, name),
        annotation=Annotated[kind, typer.Option(help=_help().get(name))],
    )


@functools.cache
def _help() -> dict[str, str]:
    """What the docstring of `TrainingSettings` says of each."""
    doc = inspect.getdoc(TrainingSettings) or ""
    found = re.findall(r"^(\w+(?:, \w+)*) : .*\n((?:    .*\n)+)", f"{doc}\n", re.MULTILINE)
    return {name: " ".join(said.split()) for names, said in found for name in names.split(", ")}
