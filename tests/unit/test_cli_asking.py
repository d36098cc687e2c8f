"""`reclane recommend` and `submit`: what the options ask for, checked before Redis is touched."""

import io
import json
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from reclane.cli import asking, cli, lines, options, printing
from reclane.cli.lines import read_requests, unique_ids
from reclane.contract import MAX_REQUEST_BYTES, parse_request
from reclane.errors import InvalidRequest


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, arguments, input=stdin)


def asked(*arguments: str, stdin: str = "") -> dict[str, Any]:
    """The fields that these options stand for."""
    found: dict[str, Any] = {}

    @click.command()
    @options.request_options
    def command(**given: Any) -> None:
        found.update(options.request_fields(given))

    result = CliRunner().invoke(command, arguments, input=stdin)
    assert result.exit_code == 0, result.output
    return found


def test_every_option_has_its_field() -> None:
    found = asked(
        *("running shoes", "-k", "5", "--catalog", "shop", "--user", "u1", "--offset", "2"),
        *("--filter", "year>=2000", "--filter", "genre=drama", "--filter", "tags~=a,b"),
        *("--history", "a, b", "--history", "c", "--exclude", "d", "--candidates", "e,f"),
        *("--diversity", "0.3", "--fields", "year,price", "--deadline", "2.5"),
    )
    assert found == {
        "query": "running shoes",
        "k": 5,
        "catalog": "shop",
        "user_id": "u1",
        "offset": 2,
        "filters": {
            "year": {"gte": 2000.0},
            "genre": {"eq": "drama"},
            "tags": {"any_of": ["a", "b"]},
        },
        "history": ["a", "b", "c"],
        "exclude": ["d"],
        "candidates": ["e", "f"],
        "diversity": 0.3,
        "fields": ["year", "price"],
        "deadline_s": 2.5,
    }
    assert parse_request(found).deadline_s == 2.5


def test_zero_is_given_and_not_left_out() -> None:
    assert asked("x", "-k", "0", "--diversity", "0")["k"] == 0


@pytest.mark.parametrize("arguments", [("-",), ()])
def test_a_query_is_read_from_a_pipe(arguments: tuple[str, ...]) -> None:
    assert asked(*arguments, stdin="科幻电影\n") == {"query": "科幻电影"}


@pytest.mark.parametrize("option", ["--history", "--user"])
def test_a_pipe_is_left_alone_where_something_else_is_asked(option: str) -> None:
    assert "query" not in asked(option, "a", stdin="not a query")


@pytest.mark.parametrize("command", ["recommend", "submit"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("x", "-k", "0"), "k: "),
        (("x", "--diversity", "2"), "diversity: "),
        ((), "at least one of query, history, user_id"),
    ],
)
def test_a_request_that_breaks_the_contract_is_refused_before_redis_is_asked(
    monkeypatch: pytest.MonkeyPatch, command: str, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(asking, "Client", pytest.fail)
    result = run(command, *arguments)
    assert isinstance(result.exception, InvalidRequest)
    assert said in str(result.exception)


@pytest.mark.parametrize("command", ["recommend", "submit"])
def test_a_bad_filter_is_a_usage_error_that_names_it(command: str) -> None:
    result = run(command, "x", "--filter", "year>=2000", "--filter", "year>=soon")
    assert result.exit_code == 2
    assert "'year>=soon': a bound is a number" in result.stderr
    assert result.stdout == ""


# ---- files of requests


def written(*values: object) -> io.BytesIO:
    return io.BytesIO(b"".join(json.dumps(value).encode() + b"\n" for value in values))


def test_each_line_is_a_request_over_the_common_fields() -> None:
    source = written({"query": "a"}, {"query": "b", "k": 7})
    found = read_requests(source, {"k": 3, "catalog": "shop"}, keep=False)
    assert [(one.query, one.k, one.catalog) for one in found] == [
        ("a", 3, "shop"),
        ("b", 7, "shop"),
    ]


def test_empty_lines_count_and_a_last_line_needs_no_end() -> None:
    found = read_requests(io.BytesIO(b'\n{"query":"a"}\n  \n{"query":"b"}'), {}, keep=False)
    assert [one.query for one in found] == ["a", "b"]


def test_every_bad_line_is_named_and_none_quoted() -> None:
    source = written({"query": "zqx"}, {"query": "zqx", "k": "zqx"}, ["zqx"], {"query": "zqx"})
    source.seek(0, io.SEEK_END)
    source.write(b"zqx\n")
    source.seek(0)
    with pytest.raises(InvalidRequest) as caught:
        read_requests(source, {}, keep=False)
    said = str(caught.value)
    assert said.startswith("nothing was enqueued\n  line 2: k: ")
    assert "\n  line 3: not a JSON object" in said
    assert said.endswith("\n  line 5: not valid JSON")
    assert "zqx" not in said


def test_a_long_list_of_bad_lines_is_cut_and_counted() -> None:
    with pytest.raises(InvalidRequest, match="and 15 more bad lines") as caught:
        read_requests(written(*[{}] * 25), {}, keep=False)
    assert str(caught.value).count("line ") == 10


def test_an_overlong_line_is_refused_without_being_read_to_its_end() -> None:
    source = io.BytesIO(b'{"query":"' + b"x" * 3 * MAX_REQUEST_BYTES + b'"}\n')
    with pytest.raises(InvalidRequest, match="line 1: longer than"):
        read_requests(source, {}, keep=False)
    assert source.tell() < 2 * MAX_REQUEST_BYTES


def test_a_file_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINES", 2)
    assert len(read_requests(written(*[{"query": "x"}] * 2), {}, keep=False)) == 2
    with pytest.raises(InvalidRequest, match="split the file"):
        read_requests(written(*[{"query": "x"}] * 3), {}, keep=False)
    monkeypatch.setattr(lines, "MAX_FILE_BYTES", 20)
    with pytest.raises(InvalidRequest, match="split the file"):
        read_requests(written(*[{"query": "x"}] * 2), {}, keep=False)


def test_an_empty_file_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="no request"):
        read_requests(io.BytesIO(b"\n"), {}, keep=False)


def test_keep_gives_each_request_a_key_of_its_own_unless_it_has_one() -> None:
    source = written({"query": "a"}, {"query": "a"}, {"query": "a", "idempotency_key": "mine"})
    keys = [one.idempotency_key for one in read_requests(source, {}, keep=True)]
    assert keys[2] == "mine"
    assert len(set(keys)) == 3
    assert None not in keys


@pytest.mark.parametrize("extra", [("a query",), ("--key", "k")])
def test_a_file_of_requests_has_its_own_queries_and_keys(extra: tuple[str, ...]) -> None:
    result = run("submit", "--from", "-", *extra, stdin='{"query":"x"}\n')
    assert (result.exit_code, result.stdout) == (2, "")


# ---- ids


def test_ids_come_from_arguments_and_stdin_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("b\n\n a \nc\n"))
    assert unique_ids(("a", "-")) == ["a", "b", "c"]


@pytest.mark.parametrize(("arguments", "stdin"), [(("-",), "\n"), (("x" * 257,), ""), ((), "")])
def test_no_ids_or_an_impossible_one_are_a_usage_error(
    arguments: tuple[str, ...], stdin: str
) -> None:
    result = run("wait", *arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, "")


def test_what_one_file_of_requests_may_hold_can_be_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = [f"{n}\n" for n in range(lines.MAX_LINES)]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(ids)))
    assert len(unique_ids(("-",))) == lines.MAX_LINES
    monkeypatch.setattr("sys.stdin", io.StringIO("".join([*ids, "one more"])))
    with pytest.raises(click.UsageError, match="in parts"):
        unique_ids(("-",))


def test_a_closed_stdin_is_a_usage_error_only_where_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert options.request_fields({"query": "film"}) == {"query": "film"}
    for read in (lambda: options.request_fields({"query": "-"}), lambda: unique_ids(("-",))):
        with pytest.raises(click.UsageError, match="stdin is closed"):
            read()
    with pytest.raises(click.UsageError, match="--yes"):
        options.confirm("Sure?", yes=False)


# ---- printing


def test_columns_are_aligned_also_beside_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    printing.table([["科幻", 1, "x"], ["ab", 22, ""]], right=(1,))
    assert capsys.readouterr().out == "科幻   1  x\nab    22\n"


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    printing.table([["\x1b[2Jhi\n"]])
    assert capsys.readouterr().out == " [2Jhi\n"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.25, "0.2 s"),
        (119.0, "119.0 s"),
        (180, "3 min"),
        (7_200, "2 h"),
        (1e6, "12 d"),
    ],
)
def test_a_span_of_time_has_the_unit_that_fits(seconds: float | None, shown: str) -> None:
    assert printing.duration(seconds) == shown
