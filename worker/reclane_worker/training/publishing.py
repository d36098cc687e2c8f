"""Puts a trained model under its name, or aside with the reason why not."""

import os
import shutil
from pathlib import Path

from reclane.errors import ModelUnusable


def working_folder(out: Path) -> Path:
    """Where a training keeps what it needs to go on after a kill."""
    return out.with_name(f".{out.name}.training")


def rejected_folder(out: Path) -> Path:
    """Where a model goes that must not be served."""
    return out.with_name(f"{out.name}.rejected")


def check_place(out: Path) -> None:
    """Raises ModelUnusable where a model cannot be published under that name."""
    if out.exists():
        raise ModelUnusable(f"{out} exists; choose another folder for the trained model")


def publish(folder: Path, out: Path) -> None:
    """Make a finished folder durable, then visible under its name in one rename."""
    check_place(out)
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.chmod(0o755 if path.is_dir() else 0o644)  # a worker may be another user
    folder.rename(out)


def put_aside(folder: Path, out: Path) -> Path:
    """Keep a model that is worse under a name of its own, in place of the last such."""
    place = rejected_folder(out)
    shutil.rmtree(place, ignore_errors=True)
    publish(folder, place)
    return place
