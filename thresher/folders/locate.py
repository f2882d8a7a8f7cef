"""Where a model lies: a folder, the hub, or what the hub's cache holds of it. Decided without long waits."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id
from transformers.utils.hub import is_offline_mode

from thresher.errors import UserError
from thresher.files import hub as hubs
from thresher.files.atomic import check_utf8

ASKING = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
"""Options of `from_pretrained` that say how the hub is asked."""


def locate(path: str | os.PathLike[str], **hub: Any) -> str:
    """Where to read a model from.

    Parameters
    ----------
    path : str or path-like
        A folder, which may start with ``~``, or a name on the Hugging Face hub.
    **hub
        Options of `ASKING`.

    Returns
    -------
    str
        A folder that exists, or a name on a hub that answers. Where the hub does not answer, the folder is
        the one in the hub's cache.

    Raises
    ------
    UserError
        If `path` is a file or not UTF-8, or nothing is there. A folder with a name like it is offered.
    """
    text = os.path.expanduser(os.fspath(path))
    check_utf8(text)
    if os.path.isdir(text):
        return text
    if os.path.exists(text):
        raise UserError(f"'{text}' is a file; give the folder that it lies in: '{Path(text).parent}'.")
    if _is_path(text):
        raise UserError(f"There is no folder '{text}'.{near(text)}")
    why = "only the cache may be read"
    if not (hub.get("local_files_only") or is_offline_mode()):
        if (refused := hubs.refusal(text)) is None:
            return text
        why = refused
    try:
        wanted = {name: hub[name] for name in ("cache_dir", "revision") if name in hub}
        return snapshot_download(text, local_files_only=True, **wanted)
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"There is no folder '{text}', and from the Hugging Face hub it could not be had ({why})."
            + near(text)
        ) from error


def _is_path(text: str) -> bool:
    """True for what cannot be a name on the hub."""
    if text.startswith((".", "~", os.sep)) or os.path.isabs(text):
        return True
    try:
        validate_repo_id(text)
    except HFValidationError:
        return True
    return False


def near(text: str) -> str:
    """An offer of the folder beside `text` whose name is most like its own."""
    path = Path(text)
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return ""
    found = get_close_matches(path.name, beside, n=1)
    if not found:
        return ""
    near = str(path.parent / found[0])
    return f" Did you mean '{near if os.path.dirname(near) else os.path.join('.', near)}'?"
