"""Reads the Lua scripts that ship beside the code, with the part they share in front."""

from importlib.resources import files


def load(package: str, name: str, *, allow_oom: bool = False) -> str:
    """The text of `package`/lua/`name`.lua.

    `allow_oom` lets a script run on a full server (Redis 7+), for those that drain it.
    """
    shared = (files("reclane") / "lua" / "terminal.lua").read_text("utf-8")
    body = (files(package) / "lua" / f"{name}.lua").read_text("utf-8")
    flags = " flags=allow-oom" if allow_oom else ""
    return f"#!lua{flags}\n{shared}{body}"
