"""JSON as both directions read and write it: no NaN, no infinity."""

import math
import re
from typing import Any, Final

from pydantic_core import from_json, to_json

from reclane.errors import WireError

_EXPONENT: Final = re.compile(rb"\d[eE]\+?\d{3}")


def read_json(data: bytes, what: str, task_id: str | None) -> Any:
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError:
        raise WireError(f"the {what} is not valid JSON", task_id) from None
    # The parser reads 1e400 as infinity all the same; only an exponent can get there.
    if _EXPONENT.search(data) and not _finite(value):
        raise WireError(f"the {what} holds a number that is not finite", task_id)
    return value


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else True


def quote(text: str) -> bytes:
    return to_json(text)
