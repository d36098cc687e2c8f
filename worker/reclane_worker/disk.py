"""How a catalog's folder is written: durably, in one step, and by one process at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from safetensors import SafetensorError

from reclane.errors import CatalogBusy, CatalogError

LOCK: Final = ".lock"
SCRATCH: Final = ".new-"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a catalog folder alone; the system lets go of it when the process ends.

    Raises:
        CatalogBusy: another process changes it now.
        CatalogError: it cannot be written.
    """
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CatalogError(f"{folder} cannot be changed: {error.strerror}") from None
    try:
        if not _hold(descriptor, path):
            raise CatalogBusy(
                f"{folder} is being changed by another process; try again when that has ended"
            )
        yield
    except (OSError, SafetensorError) as error:  # which is how safetensors says: disk full
        raise CatalogError(f"{folder} cannot be changed: {error}") from error
    finally:
        os.close(descriptor)


def _hold(descriptor: int, path: Path) -> bool:
    """Whether the lock is ours, and still the folder's: a build may have replaced that."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new folder inside, which is gone afterwards unless it was given another name."""
    made = Path(mkdtemp(prefix=SCRATCH, dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def settle(folder: Path) -> None:
    """Make a folder and its files durable, and readable by others: a worker may be another user."""
    for path in (*folder.iterdir(), folder):
        path.chmod(0o755 if path == folder else 0o644)
        flush(path)


def flush(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: str) -> None:
    """Put content in a file's place: readers see the old or the new, whatever happens."""
    new = path.with_name(f"{SCRATCH}{path.name}")
    new.write_text(content, "utf-8")
    new.chmod(0o644)
    flush(new)
    new.replace(path)
    flush(path.parent)
