"""A sink of files: parts in a hidden folder, shown to readers at once when all are there.

`OUT` is a link to the hidden folder `.OUT.run-RUN` beside it, which holds `part-RUN-000000.parquet`
and so on and `_manifest.json`; readers of data sets pass over names that start with _. Completing a
run replaces the link in one rename. What readers may rely on:

- OUT, and so each listing of `OUT/*.parquet`, is the whole result of one finished run, old or new,
  or absent before the first; never a mixture and never a part of one.
- A reader that lists before the rename and opens after it is told that the file does not exist,
  since a part's name holds its run: it reads again. A reader that resolves OUT first
  (`os.path.realpath`) keeps the old result, which is deleted only when one more run is completed.

One run at a time writes to OUT, and none is resumed once a later one is completed: completing
deletes what failed runs left.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from reclane.bulk.spec import JsonlSink, ParquetSink
from reclane_worker.bulk.errors import SinkUnusable
from reclane_worker.bulk.sinks.durable import file_errors, sync_folder, write_file
from reclane_worker.bulk.sinks.earlier import Earlier
from reclane_worker.bulk.sinks.forms import form_of
from reclane_worker.bulk.sinks.results import MANIFEST, Carried, Manifest, Part, Result, record

_RUN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Folder:
    """A `Sink` of one run. A part is made in memory: some thousand rows are a good size."""

    def __init__(self, spec: ParquetSink | JsonlSink, run: str) -> None:
        """Touches nothing.

        Raises:
            SinkUnusable: the run's id cannot be part of a file name.
        """
        if not _RUN.fullmatch(run):
            raise SinkUnusable("a run's id has up to 64 letters, digits, _ and -")
        self._run = run
        self._fields = spec.fields
        self._out = Path(os.path.abspath(spec.path))  # noqa: PTH100  a link is not followed
        self._runs = f".{self._out.name}.run-"
        self._folder = self._out.with_name(self._runs + run)
        self._form = form_of(spec)
        self._earlier: Earlier | None = None

    def check(self) -> None:
        self._check_place()
        if any(not path.name.endswith(self._form.readable) for path in self._out.glob("part-*")):
            raise SinkUnusable(f"{self._out} holds files of another kind; choose another path")
        with file_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        probe = self._folder / ".probe"
        write_file(probe, b"probe")
        probe.unlink(missing_ok=True)

    def write(self, part: int, results: Sequence[Result]) -> Part:
        content = self._form.encode([record(result, self._fields) for result in results])
        return self._write(part, len(results), content)

    def unchanged(self, wanted: Mapping[str, str]) -> set[str]:
        """The first call reads keys and digests of all rows that are shown, and keeps 16 bytes of
        each in memory."""
        earlier = self._shown_earlier()
        return earlier.unchanged(wanted) if earlier else set()

    def carry(self, number: int, at: int, parts: Sequence[Part]) -> Carried | None:
        """The first call reads the keys of all `parts`, and keeps 16 bytes of each in memory."""
        earlier = self._shown_earlier()
        own = [self._folder / str(part.name) for part in parts]
        if earlier is None or (left := earlier.without(own, at)) is None:
            return None
        content, rows, after = left
        return Carried(self._write(number, rows, content) if rows else None, after)

    def complete(self, manifest: Manifest) -> None:
        with file_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._keep_only(manifest.parts)
        write_file(self._folder / MANIFEST, manifest.model_dump_json(indent=2).encode() + b"\n")
        with file_errors(self._out):
            if (old := self._shown()) != self._folder.name:
                self._check_place()
                self._show()
                self._drop_all_but({self._folder.name, old})

    def clear(self) -> None:
        if self._shown() != self._folder.name:
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        pass

    def _write(self, part: int, rows: int, content: bytes) -> Part:
        path = self._folder / f"part-{self._run}-{part:06}{self._form.ending}"
        with file_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
        return Part(
            number=part,
            rows=rows,
            bytes=len(content),
            name=path.name,
            sha256=hashlib.sha256(content).hexdigest(),
        )

    def _shown_earlier(self) -> Earlier | None:
        """What readers see of another run; None where that is nothing."""
        shown = self._shown()
        if shown in (None, self._folder.name):
            return None
        if self._earlier is None:
            self._earlier = Earlier(self._out.with_name(shown), self._form)
        return self._earlier

    def _check_place(self) -> None:
        out = self._out
        if out.is_symlink():
            if not str(out.readlink()).startswith(self._runs):
                raise SinkUnusable(f"{out} is a link that no run made; choose another path")
        elif out.is_mount():
            raise SinkUnusable(f"{out} is a mount point; choose a path in it")
        elif out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise SinkUnusable(f"{out} holds something that no run wrote; choose another path")

    def _keep_only(self, parts: Sequence[Part]) -> None:
        """Refuse a manifest whose parts are not there; drop what it does not name."""
        found = {path.name: path for path in self._folder.iterdir()}
        for part in parts:
            path = found.pop(part.name or "", None)
            if path is None or path.stat().st_size != part.bytes:
                raise SinkUnusable(
                    f"{self._folder}: part {part.number} is missing or was altered; write it again"
                )
        for name, path in found.items():
            if name != MANIFEST:
                path.unlink(missing_ok=True)

    def _shown(self) -> str | None:
        """The folder that readers see now, by name."""
        return str(self._out.readlink()) if self._out.is_symlink() else None

    def _show(self) -> None:
        link = self._out.with_name(f".{self._out.name}.link-{self._run}")
        link.unlink(missing_ok=True)
        link.symlink_to(self._folder.name)
        if self._out.is_dir() and not self._out.is_symlink():
            self._out.rmdir()  # empty: nobody loses anything
        link.replace(self._out)
        sync_folder(self._out.parent)

    def _drop_all_but(self, kept: set[str | None]) -> None:
        """Drop results that were replaced longer ago, and what failed runs left of theirs."""
        for folder in self._out.parent.iterdir():
            run = folder.name.removeprefix(self._runs)
            is_run = run != folder.name and _RUN.fullmatch(run)  # not of OUT.run-x beside OUT
            if is_run and folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
