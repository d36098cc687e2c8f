"""Which catalogs an evaluation measures, and on which requests: one, or a file that names several.

A file, because a catalog has a name, items, requests and more, because paths in it stay right
wherever the command is called, and because a gate in CI asks for the same ones every time.
"""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reclane.contract import explain_validation
from reclane.errors import InvalidSettings
from reclane_worker.reading import OWN_FIELDS


class Source(BaseModel):
    """One catalog: `items` is a file, or a catalog's built folder, which has its fields and aliases
    already. What is popular comes from `interactions`, if there are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: Path
    requests: Path
    fields: tuple[str, ...] = Field(default=OWN_FIELDS, min_length=1)
    aliases: Path | None = None
    interactions: Path | None = None


Plan = dict[str, Source]
"""Catalogs by name, in the order in which they are measured."""


def read_plan(path: Path) -> Plan:
    """A TOML file with a table for each catalog, such as

        [films]
        items = "films.jsonl.gz"
        requests = "asked.jsonl"

    Paths are relative to the file.

    Raises:
        InvalidSettings: naming the catalog and what is wrong, or the file that is not there.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSettings(f"{path} cannot be read as TOML: {error}") from None
    if not tables:
        raise InvalidSettings(f"{path} names no catalog; write a table [name] with items, requests")
    return {name: _source(path, name, table) for name, table in tables.items()}


def _source(path: Path, name: str, table: Any) -> Source:
    try:
        source = Source.model_validate(table)
    except ValidationError as error:
        raise InvalidSettings(f"{path}, [{name}]: {explain_validation(error)}") from None
    files = {
        key: path.parent / value for key, value in source if isinstance(value, Path)
    }  # an absolute path stays as it is
    for key, file in files.items():
        if not file.exists():
            raise InvalidSettings(f"{path}, [{name}]: there is no {key} {file}")
    return source.model_copy(update=files)
