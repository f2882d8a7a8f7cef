"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from thresher.data.formats import SUFFIXES, format_of, open_file
from thresher.data.table import unreadable
from thresher.errors import UserError

HEAD = 1 << 16  # bytes looked at
GZIP = b"\x1f\x8b\x08"
GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)

_MARKS = {  # that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_AS_CSV = "open it and save it as CSV"
_UNPACK = "unpack it, and give the file that is in it"
_PANDAS = "write its rows as .parquet or .jsonl"
_BINARY = [  # the first that matches
    (rb"PK\x03\x04(?s:.{0,400}opendocument\.spreadsheet)", "an OpenDocument spreadsheet", _AS_CSV),
    (rb"PK\x03\x04(?s:.*\bword/)", "a Word document", "save its text in one of the formats " + SUFFIXES),
    (rb"PK\x03\x04(?s:.*(\bxl/|\[Content_Types\]\.xml))", "an Excel workbook", _AS_CSV),
    (rb"PK\x03\x04(?s:.*\.npy)", "a NumPy archive (.npz)", _PANDAS),
    (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a zip archive", _UNPACK),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls) or other Office file", _AS_CSV),
    (rb"\x1f\x8b\x08", "gzipped twice", "unpack it once (gunzip)"),
    (rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)", "packed by bzip2", "unpack it (bunzip2)"),
    (rb"\xfd7zXZ\x00", "packed by xz", "unpack it (unxz)"),
    (rb"[\x22-\x28]\xb5\x2f\xfd", "packed by zstd", "unpack it (unzstd)"),
    (rb"\x04\x22\x4d\x18", "packed by lz4", "unpack it (unlz4)"),
    (rb"\x1f[\x9d\xa0]", "packed by compress (.Z)", "unpack it (uncompress)"),
    (rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07", "a 7z or RAR archive", _UNPACK),
    (rb"(?s:.{257})ustar", "a tar archive", _UNPACK),
    (rb"%PDF-", "a PDF document", "give the texts in it in one of the formats " + SUFFIXES),
    (rb"SQLite format 3\x00", "an SQLite database", "export the table as CSV"),
    (rb"\x80[\x02-\x05]", "a Python pickle", _PANDAS),
    (rb"\x93NUMPY", "a NumPy array (.npy)", _PANDAS),
    (rb"ARROW1\x00\x00|FEA1\x00|\xff\xff\xff\xff.{3}\x00", "an Arrow or Feather file", _PANDAS),
    (rb"Obj\x01", "an Avro file", _PANDAS),
    (rb"ORC[\x00-\x08\x0e-\x1f]", "an ORC file", _PANDAS),
    (rb"\x89HDF\r\n", "an HDF5 file", _PANDAS),
    (rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a", "an image", "give a file of texts"),
    (rb"\x7fELF", "a program", "give a file of texts"),
]
_TEXTUAL = [
    (r"\s*<(!doctype\b|html\b|head\b|\?xml\b)", "an HTML or XML page", "download the file itself"),
    (r"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch that with git lfs pull"),
    (r"\{\\rtf", "an RTF document", "save it as plain text in one of the formats " + SUFFIXES),
    (
        r"\s*\[\s*\{",
        "one JSON array, not JSON Lines",
        "write one object a line: jq -c '.[]' FILE > lines.jsonl",
    ),
    (r"(?s).*?\x1b\$[@AB]", "in ISO-2022-JP or its kin", "save it as UTF-8"),
]
_JSON_OBJECT = re.compile(r'\s*\{\s*"([^"\\]|\\.)*"\s*:')


@dataclass(frozen=True)
class Found:
    """What a file is.

    Attributes
    ----------
    path : Path
    kind : {"tsv", "csv", "jsonl", "json", "conll", "parquet"}
    packed : bool
        Whether it is gzipped.
    encoding : str
    newline : str
        As of `io.TextIOWrapper`: line feeds end the lines, or (empty) carriage returns do as well.
    head : str
        How the text begins.
    whole : bool
        Whether the head is all there is.
    """

    path: Path
    kind: str
    packed: bool = False
    encoding: str = "utf-8-sig"
    newline: str = "\n"
    head: str = ""
    whole: bool = True

    def head_lines(self) -> list[str]:
        """The whole lines of the head, with their ends."""
        lines = list(io.StringIO(self.head, newline=self.newline))
        return lines if self.whole else lines[:-1]


def sniff(path: Path) -> Found:
    """Look at the first bytes of a file, and say what it is.

    Raises
    ------
    UserError
        Unknown suffix; a file that cannot be opened; a kind of file that holds no rows, or not in a way
        that can be read here.
    """
    kind, _ = format_of(path)
    if not path.is_file():
        raise UserError(
            f"{path}: is a pipe or a device, which can be read once alone; write it to a file first"
        )
    try:
        head = _head(path, packed=False)
        if packed := head.startswith(GZIP):
            head = _head(path, packed=True)
    except OSError as error:
        raise unreadable(path, error, "check the path and its permissions") from error
    if _is_parquet(path, head):
        if packed:
            raise UserError(f"{path}: is a gzipped Parquet file; unpack it (gunzip)")
        return Found(path, "parquet")
    _refuse(path, _BINARY, head)
    encoding = _encoding(head)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    _refuse(path, _TEXTUAL, text)
    if kind not in ("json", "jsonl") and _JSON_OBJECT.match(text):
        kind = "jsonl"
    if kind == "parquet" and text and "\0" not in text and "\ufffd" not in text:
        raise UserError(f"{path}: is text, not Parquet; name it .tsv, .csv or .jsonl, by what it holds")
    unquoted = re.sub('"[^"]*"', "", text) if kind == "csv" else text  # a text may hold line ends
    whole = len(head) < HEAD
    newline = "" if "\n" not in unquoted and "\r" in (unquoted if whole else unquoted[:-1]) else "\n"
    return Found(path, kind, packed, encoding, newline, text, whole)


def _head(path: Path, packed: bool) -> bytes:
    """The first bytes, or as many as damaged gzip data has."""
    head = b""
    with open_file(path, packed, "rb") as file:
        try:
            while len(head) < HEAD and (more := file.read1(HEAD - len(head))):
                head += more
        except GZIP_ERRORS:
            pass
    return head


def _is_parquet(path: Path, head: bytes) -> bool:
    """Whether the bytes are Parquet's, even if the end is missing: a text has no zero byte."""
    return head.startswith((b"PAR1", b"PARE")) and (b"\0" in head or head.endswith(b"PAR1"))


def _refuse(path: Path, kinds: list[tuple], head: bytes | str) -> None:
    for pattern, what, advice in kinds:
        if re.match(pattern, head, re.IGNORECASE if isinstance(head, str) else 0):
            raise UserError(f"{path}: is {what}; {advice.replace('FILE', path.name)}")


def _encoding(head: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    for encoding, high in (("utf-16-le", 1), ("utf-16-be", 0)):
        if b"\0" in head and _is_utf16(head, high):
            return encoding
    return "utf-8-sig"


def _is_utf16(head: bytes, high: int) -> bool:
    """Whether the bytes are UTF-16 without a mark: zeros are more common among the high bytes, and line ends
    have one: most of those that UTF-8 would have, or some where the bytes are not UTF-8 at all."""
    highs, lows = head[high::2], head[1 - high :: 2]
    ends = [top == 0 for top, low in zip(highs, lows, strict=False) if low in b"\r\n"]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        enough = sum(ends) * 2 > len(ends)
    except UnicodeDecodeError:
        enough = any(ends)
    return enough and highs.count(0) > lows.count(0)
