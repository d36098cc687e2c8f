"""producer/MESSAGES.md is true: its examples run as they stand, its tables match the code.

Nothing of reclane's client takes part in the examples, only raw Redis commands.
"""

import ast
import base64
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

import reclane_worker
from reclane import contract, names, wire
from reclane.contract import RecommendRequest
from reclane.errors import InvalidRequest, WireError
from reclane.settings import Settings
from reclane_worker.triage import MAX_MESSAGE_BYTES
from support import KEYS, StartWorker, eventually, shape

DOCUMENT = (Path(__file__).parents[2] / "producer" / "MESSAGES.md").read_text("utf-8")


def section(heading: str) -> str:
    """From one heading to the next of any level."""
    _, _, rest = DOCUMENT.partition(f"\n{heading}\n")
    assert rest, heading
    return re.split(r"^#+ ", rest, flags=re.MULTILINE)[0]


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)


def table(text: str, header: str) -> list[list[str]]:
    """The cells of the table whose header row starts so, without header and rule."""
    _, _, rest = text.partition(f"| {header} |")
    rows = rest.split("\n\n", 1)[0].splitlines()[2:]
    assert rows, header
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


# ---- examples ---------------------------------------------------------------------------------

EXAMPLES = re.findall(r"^### (.*)$", DOCUMENT.partition("\n## Examples\n")[2], re.MULTILINE)
_WORD = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\S+)""")


def words(line: str) -> list[str]:
    """A line as redis-cli reads it: single quotes know the escape \\' alone, double ones \\xNN."""
    found = []
    for single, double, bare in _WORD.findall(line):
        in_double = re.sub(r"\\x(..)", lambda byte: chr(int(byte[1], 16)), double)
        found.append(single.replace("\\'", "'") or in_double or bare)
    return found


class Shell:
    """Executes the lines of an example; a subscription stands before the next line runs."""

    def __init__(self, connection: "redis.Redis") -> None:
        self._redis = connection
        self._pubsub = connection.pubsub()
        self.heard: dict[str, list[str]] = {}
        self.pushed: list[str] = []

    def run(self, block: str) -> None:
        for line in block.splitlines():
            command, *arguments = words(line)
            assert command in ("SUBSCRIBE", "LPUSH", "SET", "PUBLISH", "GET", "MGET"), line
            if command == "SUBSCRIBE":
                self._pubsub.subscribe(*arguments)
                eventually(lambda: self._hear() == "subscribe", "the subscription stands")
                self.heard |= {channel: [] for channel in arguments}
                continue
            if command == "LPUSH":
                self.pushed.append(json.loads(arguments[1])["headers"]["id"])
            self._redis.execute_command(command, *arguments)

    def results(self) -> list[str]:
        """What is stored for everything pushed, once all is there."""
        keys = [KEYS.result(task_id) for task_id in self.pushed]
        eventually(lambda: self._redis.exists(*keys) == len(keys), "all results are stored")
        return [raw.decode() for raw in self._redis.mget(keys)]

    def lines_heard(self, channel: str, count: int) -> list[str]:
        """What was published on a channel, line by line, once there are so many."""

        def enough() -> bool:
            self._hear()
            return len("\n".join(self.heard[channel]).splitlines()) >= count

        eventually(enough, f"{count} lines on {channel}")
        return "\n".join(self.heard[channel]).splitlines()

    def close(self) -> None:
        self._pubsub.close()

    def _hear(self) -> str:
        message = self._pubsub.get_message(timeout=0.05)
        if message and message["type"] == "message":
            self.heard[message["channel"].decode()].append(message["data"].decode())
        return str(message["type"]) if message else ""


@pytest.fixture
def shell(raw: "redis.Redis") -> Iterator[Shell]:
    made = Shell(raw)
    yield made
    made.close()


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs_and_ends_as_shown(
    example: str, shell: Shell, start_worker: StartWorker, raw: "redis.Redis"
) -> None:
    (block,) = fenced(section(f"### {example}"), "redis")
    (shown,) = fenced(section(f"### {example}"), "json")
    start_worker()
    shell.run(block)
    stored = shell.results()
    assert len(shell.pushed) == len(shown.splitlines())
    for ours, theirs in zip(
        map(json.loads, stored), map(json.loads, shown.splitlines()), strict=True
    ):
        assert shape(ours) == shape(theirs)
        assert (ours["status"], ours["task_id"]) == (theirs["status"], theirs["task_id"])
        if ours["status"] != "SUCCESS":
            assert ours["result"] == theirs["result"]
    for channel in shell.heard:
        if names.is_notify_channel(channel):
            assert sorted(shell.lines_heard(channel, len(stored))) == sorted(shell.pushed)
        else:
            assert shell.lines_heard(channel, 1) == stored
    ttl_s = raw.ttl(KEYS.result(shell.pushed[0]))
    assert 0 < ttl_s <= Settings.model_fields["result_ttl_s"].default


def test_the_examples_show_every_ending_and_every_way_to_hear_of_it() -> None:
    text = DOCUMENT.partition("\n## Examples\n")[2]
    shown = [json.loads(line)["status"] for b in fenced(text, "json") for line in b.splitlines()]
    assert set(shown) == wire.READY
    commands = [words(line) for block in fenced(text, "redis") for line in block.splitlines()]
    lists = {command[1] for command in commands if command[0] == "LPUSH"}
    assert lists <= set(KEYS.lane_lists())
    assert {names.INTERACTIVE_QUEUE, names.BULK_QUEUE} < lists
    assert any(names.is_notify_channel(c[1]) for c in commands if c[0] == "SUBSCRIBE")


def test_a_cancelled_example_is_dropped_by_a_worker_that_comes_later(
    shell: Shell, start_worker: StartWorker, raw: "redis.Redis"
) -> None:
    (block,) = fenced(section("### Cancelled"), "redis")
    shell.run(block)
    before = shell.results()
    start_worker()
    eventually(lambda: raw.llen(names.INTERACTIVE_QUEUE) == 0, "the worker takes the message")
    eventually(lambda: not raw.keys(KEYS.inflight("*")), "the message is done")
    assert shell.results() == before
    assert json.loads(before[0])["result"]["exc_message"] == ["cancelled"]


# ---- the envelope -----------------------------------------------------------------------------

(ENVELOPE,) = fenced(section("### The envelope"), "json")
FIELDS = table(section("### The envelope"), "field")


def leaves(value: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every field by its path; what only stock Celery reads in delivery_info is one field."""
    for key, part in value.items():
        yield path + key
        if isinstance(part, dict) and key != "delivery_info":
            yield from leaves(part, f"{path}{key}.")


def without(envelope: dict[str, Any], path: str) -> bytes:
    copied = json.loads(json.dumps(envelope))
    *parents, last = path.split(".")
    place = copied
    for parent in parents:
        place = place[parent]
    del place[last]
    return json.dumps(copied).encode()


def test_the_envelope_shown_is_the_one_in_the_first_example() -> None:
    (block,) = fenced(section(f"### {EXAMPLES[0]}"), "redis")
    pushed = next(words(line)[2] for line in block.splitlines() if line.startswith("LPUSH"))
    assert json.loads(pushed) == json.loads(ENVELOPE)
    (body,) = fenced(section("### The body"), "json")
    assert base64.b64decode(json.loads(ENVELOPE)["body"]).decode() == body


def test_the_table_has_every_field_shown() -> None:
    assert sorted(row[0].strip("`") for row in FIELDS) == sorted(leaves(json.loads(ENVELOPE)))


@pytest.mark.parametrize(("field", "role"), [(row[0].strip("`"), row[1]) for row in FIELDS])
def test_a_field_is_required_exactly_where_the_table_says_so(field: str, role: str) -> None:
    envelope = json.loads(ENVELOPE)
    # As plain text, so that the body can be read also without body_encoding.
    envelope["body"] = base64.b64decode(envelope["body"]).decode()
    envelope["properties"]["body_encoding"] = "utf-8"
    message = wire.decode_message(json.dumps(envelope).encode())
    if role == "required":
        with pytest.raises(WireError):
            wire.decode_message(without(envelope, field))
    else:
        assert role in ("read", "ignored")
        assert wire.decode_message(without(envelope, field)).args == message.args


def test_every_celery_message_has_a_list_in_the_document() -> None:
    queues = [row[0].strip("`") for row in table(section("### Where it goes"), "list")]
    assert tuple(queues) == names.LANE_QUEUES
    assert names.priority_list(names.INTERACTIVE_QUEUE, 3) == "reclane.interactive\x06\x163"
    assert names.PRIORITY_STEPS == (0, 3, 6, 9)


# ---- the request ------------------------------------------------------------------------------


def test_every_field_of_a_request_is_in_the_table() -> None:
    fields = [row[0].strip("`") for row in table(section("### The body"), "field")]
    assert sorted(fields) == sorted(RecommendRequest.model_fields)


def test_the_limits_are_those_of_the_code() -> None:
    shown = {
        row[0]: int(row[1].replace(",", "")) for row in table(section("### The body"), "limit")
    }
    assert shown == {
        "envelope, bytes, reclane's clients": contract.MAX_REQUEST_BYTES,
        "envelope, bytes, the lane": MAX_MESSAGE_BYTES,
        "`query`, bytes of UTF-8": contract.MAX_QUERY_BYTES,
        "an id or a name, characters": contract.MAX_ID_CHARS,
        "`history`": contract.MAX_HISTORY,
        "`k`": contract.MAX_K,
        "`offset`": contract.MAX_OFFSET,
        "`exclude`, `candidates`": contract.MAX_IDS,
        "`filters`": contract.MAX_FILTERS,
        "values of one filter": contract.MAX_FILTER_VALUES,
        "`fields`, `context`": contract.MAX_FIELDS,
        "`constraints`": contract.MAX_CONSTRAINTS,
        "what a constraint `said`, characters": contract.MAX_SAID_CHARS,
        "ids in an intent's `similar`": contract.MAX_SIMILAR,
        "requests of a chunk": contract.MAX_CHUNK,
        "`k` of a chunk's requests, together": contract.MAX_CHUNK_ITEMS,
    }


# ---- failures ---------------------------------------------------------------------------------


def codes_in(source: str) -> Iterator[str]:
    """Codes that stand as text in calls of Failure and RequestFailed."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        values: Sequence[ast.expr] = [k.value for k in node.keywords if k.arg == "code"]
        if node.func.id == "RequestFailed":
            values = [*node.args[1:2], *values]
        elif node.func.id != "Failure":
            continue
        yield from (v.value for v in values if isinstance(v, ast.Constant))


def test_every_code_that_a_worker_stores_is_in_the_table_and_no_other() -> None:
    folder = Path(reclane_worker.__file__).parent
    written = {code for p in folder.rglob("*.py") for code in codes_in(p.read_text("utf-8"))}
    assert {"too_large", "invalid_filter", "internal"} <= written  # the search finds all spellings
    shown = {row[0].strip("`") for row in table(section("## The result"), "code")}
    assert shown == written | {WireError.code, InvalidRequest.code}
