"""Bounded lines of a plain or gzipped file, from any byte offset between two of them."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

from reclane_worker.bulk.errors import SourceUnusable
from reclane_worker.bulk.sources.rows import MAX_ROW_BYTES
from reclane_worker.bulk.sources.values import Unreadable

_BOM: Final = b"\xef\xbb\xbf"


class Lines:
    """Iterates over lines as text; `offset` and `line` count what was read, from the file's start.

    A byte that is not UTF-8 arrives as a lone surrogate. Where the lines since `begin_row` grow
    longer than a row may be, the one at hand is passed over and Unreadable raised; the next call
    goes on behind it.
    """

    def __init__(self, file: IO[bytes], offset: int = 0, line: int = 0) -> None:
        self._file = file
        self._row_bytes = 0
        self.offset = offset
        self.line = line
        if offset:
            file.seek(offset)  # a .gz is read up to there

    def begin_row(self) -> None:
        self._row_bytes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        read = self._read()
        if not read:
            raise StopIteration
        text = read if self.offset else read.removeprefix(_BOM)
        self.line += 1
        self.offset += len(read)
        if self._row_bytes > MAX_ROW_BYTES:
            self._pass_over(read)
            raise Unreadable(f"longer than {MAX_ROW_BYTES} bytes; skipped to line {self.line + 1}")
        return text.decode("utf-8", "surrogateescape")

    def _read(self) -> bytes:
        read = self._file.readline(MAX_ROW_BYTES + 1)
        self._row_bytes += len(read)
        return read

    def _pass_over(self, read: bytes) -> None:
        while read and not read.endswith(b"\n"):
            read = self._read()
            self.offset += len(read)


def check_utf8(text: str) -> None:
    """Refuse what `Lines` could not decode.

    Raises:
        Unreadable: always the same words.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unreadable("not valid UTF-8") from None


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed where its name ends in .gz.

    Raises:
        SourceUnusable: it cannot be opened, or is damaged or cut short where it was read.
    """
    try:
        with path.open("rb") as raw:
            is_gzip = path.name.lower().endswith(".gz")
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if is_gzip else raw
    except (OSError, EOFError, zlib.error) as error:
        raise SourceUnusable(f"{path}: cannot be read: {error}") from error
