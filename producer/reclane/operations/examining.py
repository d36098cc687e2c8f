"""Doctor's visit: collect facts, judge them. Works also where Redis cannot be reached."""

from dataclasses import dataclass
from typing import Final

import redis

from reclane import __version__, contract
from reclane._connection import connect
from reclane.errors import InvalidSettings
from reclane.operations.config_findings import AREA
from reclane.operations.facts import lane_facts, server_facts
from reclane.operations.findings import Finding, ok, problem
from reclane.operations.lane_findings import judge_lane
from reclane.operations.origins import Origin, origins
from reclane.operations.server_findings import judge_server
from reclane.settings import Settings

_REASON_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Examination:
    """What doctor found, and the settings it found it under."""

    findings: tuple[Finding, ...]
    settings: tuple[Origin, ...]


def examine() -> Examination:
    """Look at settings, server, workers and queues. Reads only, and raises nothing of Redis's."""
    version = ok("reclane", "version", f"{__version__}, contract {contract.VERSION}")
    try:
        settings = Settings.load()
    except InvalidSettings as error:
        fix = "mend the variable named, in the environment or in .env"
        return Examination((version, problem("reclane", "settings", str(error), fix)), ())
    seen = [version, *_server_and_lane(settings)]
    return Examination(tuple(seen), tuple(origins(settings)))


def _server_and_lane(settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    try:
        with connect(settings) as client:
            found += judge_server(server_facts(client, settings.keys))
            seen = lane_facts(client, settings.keys)
            found += judge_lane(seen, settings.keys, settings.queue_limit)
    except redis.AuthenticationError as error:
        fix = "mend user and password in RECLANE_REDIS_URL"
        found.insert(0, problem(AREA, "reached", _reason(error), fix))
    except redis.RedisError as error:
        fix = "start the server, or mend host, port and scheme in RECLANE_REDIS_URL"
        found.insert(0, problem(AREA, "reached", _reason(error), fix))
    return found


def _reason(error: Exception) -> str:
    return f"no: {type(error).__name__}: {str(error)[:_REASON_CHARS]}"
