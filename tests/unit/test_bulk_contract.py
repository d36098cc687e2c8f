"""What others rely on of bulk runs: the task, its spec, the columns of a result."""

import inspect
import json
from pathlib import Path
from typing import Any, Final

import pytest

from reclane import names
from reclane.bulk.runs import COUNTS, STATES
from reclane.bulk.spec import parse_run
from reclane.errors import InvalidRequest
from reclane_worker.app import bulk_start
from reclane_worker.bulk.sinks.parquet import schema
from reclane_worker.bulk.sinks.results import Manifest

GOLDEN: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "golden" / "bulk_v1.json").read_text("utf-8")
)


def test_the_task_keeps_its_name_and_arguments() -> None:
    assert names.BULK_START == GOLDEN["task"] == bulk_start.name
    parameters = list(inspect.signature(bulk_start.run).parameters.values())
    known = parameters[: len(GOLDEN["arguments"])]
    assert [one.name for one in known] == GOLDEN["arguments"]
    assert all(one.default is not one.empty for one in parameters[1:])


@pytest.mark.parametrize("stored", GOLDEN["specs"])
def test_a_spec_that_was_stored_reads_as_it_did(stored: dict[str, Any]) -> None:
    spec = parse_run(stored)
    again = json.loads(spec.model_dump_json())
    assert parse_run(again) == spec

    def holds(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return all(name in whole and holds(one, whole[name]) for name, one in part.items())
        return bool(part == whole)

    assert holds(stored, again)
    assert "secret" not in repr(spec)


def test_a_spec_that_says_too_much_is_refused_without_quoting_it() -> None:
    wrong = {**GOLDEN["specs"][0], "secretly": 1}
    with pytest.raises(InvalidRequest, match="secretly: Extra inputs"):
        parse_run(wrong)


def test_two_specs_that_write_to_one_place_name_it_alike() -> None:
    outputs = [parse_run(one).output() for one in GOLDEN["specs"]]
    assert outputs[0] == outputs[3]
    assert len({*outputs}) == 3
    other = json.loads(json.dumps(GOLDEN["specs"][2]).replace("secret", "newer"))
    assert parse_run(other).output() == outputs[2], "a password is no part of it"


def test_the_columns_of_a_result_are_only_added_to() -> None:
    found = {field.name: str(field.type) for field in schema(True)}
    assert GOLDEN["parquet"].items() <= found.items()
    assert [*found][: len(GOLDEN["parquet"])] == [*GOLDEN["parquet"]]
    assert {*GOLDEN["manifest"]} <= {*Manifest.model_fields}


def test_counts_and_states_keep_their_names() -> None:
    assert {*GOLDEN["counts"]} <= {*COUNTS}
    assert {*GOLDEN["states"]} <= {*STATES}
