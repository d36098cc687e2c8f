"""Files that are whole or absent, whatever fails: temporary name, fsync, rename, fsync."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

from reclane_worker.bulk.errors import SinkFull, SinkUnusable

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_file(path: Path, content: bytes) -> None:
    """Write or replace `path`; its readers see the old bytes or the new ones.

    Raises:
        SinkFull: there was no room; `path` is as it was.
        SinkUnusable: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}-{uuid4().hex}")
    with file_errors(path):
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in the folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turns an OSError into SinkFull or SinkUnusable."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise SinkFull(
                f"{path.parent}: no room ({error.strerror}); nothing half was left, free some"
            ) from error
        raise SinkUnusable(f"{path}: cannot be written: {error.strerror}") from error
