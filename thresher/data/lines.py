"""The lines of a text file, each sound."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from thresher.data.formats import open_file
from thresher.data.sniff import GZIP_ERRORS, Found
from thresher.data.table import unreadable
from thresher.errors import UserError

LONGEST = 1 << 24  # characters of one row: five times War and Peace
HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: no character, and what wrong bytes are decoded to


def lines(found: Found) -> Iterator[str]:
    """Decode a file line by line, endings kept, in bounded memory.

    Raises
    ------
    UserError
        A byte that the encoding does not have, a NUL, more than `LONGEST` characters, or damaged gzip data,
        each with its line.
    """
    path, line = found.path, 0
    errors = "surrogateescape" if found.encoding.startswith("utf-8") else "surrogatepass"
    try:
        with (
            open_file(path, found.packed, "rb") as file,
            io.TextIOWrapper(file, found.encoding, errors, found.newline) as text,
        ):
            for content in iter(partial(text.readline, LONGEST + 1), ""):
                line += 1
                if len(content) > LONGEST:
                    raise too_long(path, line)
                if "\0" in content or not (content.isascii() or HALF.search(content) is None):
                    raise UserError(f"{path}:{line}: {_fault(content, found.encoding)}")
                yield content
    except UnicodeDecodeError as error:
        name = found.encoding.upper()
        raise unreadable(
            path, error, f"the {name} text is damaged after line {line}: copy it again"
        ) from error
    except GZIP_ERRORS as error:
        raise unreadable(
            path, error, f"the gzip data are damaged after line {line}: copy it again"
        ) from error
    except OSError as error:
        raise unreadable(path, error, "check the path and its permissions") from error


def too_long(path: Path, line: int) -> UserError:
    """A row that memory could not hold, by the line on which it starts."""
    return UserError(
        f"{path}:{line}: the row is longer than {LONGEST:,} characters; check its line ends and quotes, or "
        "part its text into several rows"
    )


def _fault(content: str, encoding: str) -> str:
    half = HALF.search(content)
    if half is None:
        return "holds a NUL byte, which no text has; remove it (of UTF-16 or UTF-32, save the file as UTF-8)"
    if not encoding.startswith("utf-8"):
        return "holds half of a surrogate pair, which is no character; save the file as UTF-8"
    return (
        f"byte 0x{ord(half[0]) & 0xFF:02x} is not UTF-8; save the file as UTF-8 "
        "(Excel: 'CSV UTF-8'; if it is in cp1252: iconv -f cp1252 -t utf-8)"
    )
