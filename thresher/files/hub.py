"""Whether the Hugging Face hub answers, asked once and without a long wait."""

from __future__ import annotations

import math
import time

from thresher.errors import first_line

SECONDS = 5.0  # to wait for the hub's first answer
HOLDS = 60.0  # seconds that the answer is not asked for again
_answers: dict[str, tuple[float, str | None]] = {}


def refusal(name: str, kind: str = "model") -> str | None:
    """Why the hub cannot be asked for a model or a data set, or None where it answers.

    One request: huggingface_hub would try six times in 23 seconds, and would say so each time. An answer
    holds for the parts of a model that are read next.
    """
    asked, answer = _answers.get(name, (-math.inf, None))
    if time.monotonic() - asked > HOLDS:
        answer = _ask(name, kind)
        _answers[name] = time.monotonic(), answer
    return answer


def _ask(name: str, kind: str) -> str | None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import get_session

    try:
        get_session().head(hf_hub_url(name, "config.json", repo_type=kind), timeout=SECONDS)
    except Exception as error:  # the kind depends on the version of huggingface_hub, which changed its client
        return first_line(error)
    return None
