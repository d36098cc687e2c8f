"""Reads the Lua scripts that ship beside the code, with the part they share in front."""

from importlib.resources import files
from typing import Final

RESULT_TTL_S: Final = 300
"""Seconds a result is kept by default: 60,000 answers/s of 1.7 KB fill 30 GB in 300 s."""


def load(package: str, name: str, *, allow_oom: bool = False) -> str:
    """The text of `package`/lua/`name`.lua.

    `allow_oom` lets a script run on a full server (Redis 7+), for those that drain it.
    """
    shared = (files("reclane") / "lua" / "terminal.lua").read_text("utf-8")
    body = (files(package) / "lua" / f"{name}.lua").read_text("utf-8")
    flags = " flags=allow-oom" if allow_oom else ""
    return f"#!lua{flags}\n{shared}{body}"
