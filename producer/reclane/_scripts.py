"""Reads the Lua scripts that ship beside the code."""

from importlib.resources import files


def load(*parts: str, allow_oom: bool = False) -> str:
    """One script from its parts, each `package/name` for that package's lua/name.lua, in order.

    `allow_oom` lets a script run on a full server (Redis 7+), for those that drain it.
    """
    flags = " flags=allow-oom" if allow_oom else ""
    texts = [
        (files(package) / "lua" / f"{name}.lua").read_text("utf-8")
        for package, name in (part.split("/") for part in parts)
    ]
    return "\n".join([f"#!lua{flags}", *texts])
