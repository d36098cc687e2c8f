"""Reads messages for people: nothing that one of them holds may end the command."""

from typing import Any

from reclane import wire
from reclane.errors import WireError


def read(raw: bytes) -> wire.Message | WireError:
    """The message, or why it cannot be read, with its id where that could be found."""
    try:
        return wire.decode_message(raw)
    except WireError as error:
        return WireError(str(error), error.task_id or wire.find_id(raw))
    except Exception as error:
        return WireError(f"unreadable ({type(error).__name__})", wire.find_id(raw))


def asked(message: wire.Message) -> Any:
    """What a message asks, valid or not: private, so show it only when told to."""
    try:
        return message.request_fields()
    except WireError:
        return {"args": message.args, "kwargs": message.kwargs}
