"""`reclane bulk run`: what is wrong is said before anything begins, and never with a password."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from reclane.cli import cli, exits
from reclane.cli.bulk_options import run_spec, spec_options


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("", 2, "IN..."),
        ("in.csv", 2, "--out"),
        ("in.csv --out o --to-table t", 2, "--to-table: --out is no database"),
        ("in.csv --out o --ttl 3", 2, "--ttl: --out is no Redis"),
        ("in.csv --out o --from-table t", 2, "--from-table: IN is no database"),
        ("in.csv --out redis://h/0", 2, "needs --ttl"),
        ("in.csv --out redis://h/0 --ttl soon", 2, "not a valid integer"),
        ("in.csv --out redis://h/0 --ttl 9 --format jsonl", 2, "--format: --out is no folder"),
        ("in.csv --out sqlite:///r.db", 2, "needs --to-table"),
        ("in.csv --out s3://bucket/recs", 2, "s3://: write a path, or a URL with sqlite:///"),
        ("in.csv --out mysql://h/db --to-table t", 2, "--out is no database"),
        ("s3://bucket/in.parquet --out o", 2, "s3://: write a path"),
        ("sqlite:///in.db --out o", 2, "--from-table or --from-query"),
        ("sqlite:///in.db more --from-table t --out o", 2, "one URL"),
        ("in.csv --out o --map history", 2, "write FIELD=COLUMN"),
        ("in.csv --out o --map k=a --map k=b", 2, "given twice"),
        ("in.csv --out o --changed-since at", 2, "write COLUMN=VALUE"),
        ("in.csv --out o --changed-since a=1 --changed-since b=1", 2, "give one column"),
        ("in.csv --out o --map histroy=seen", 65, "do you mean history?"),
        ("in.csv --out o --set k=abc", 65, "k: Input should be a valid integer"),
        ("in.csv --out o --changed-since at=yesterday", 65, "write a number, or a date or time"),
        ("in.csv --out o --max-bad -1", 65, "max_bad"),
        ("in.csv --out redis://h/0 --ttl 0", 65, "ttl_s"),
        ("in.csv --out redis://h/0 --ttl 9 --redis-key recs", 65, "recs:{key}"),
        ("in.csv --out redis://:ge#heim@h/0 --ttl 9", 65, "as %40"),
        ("in.csv --out postgresql://me:ge/heim@h/db --to-table t", 65, "as %40"),
    ],
)
def test_what_is_wrong_is_said_before_anything_begins(arguments: str, code: int, said: str) -> None:
    done = CliRunner().invoke(cli, ["bulk", "run", *arguments.split()])
    told = done.stderr + str(done.exception)
    assert said in told
    assert "heim" not in told
    assert code == (2 if done.exit_code == 2 else exits.of(done.exception or Exception()))


def test_no_bad_row_at_all_can_be_asked_for() -> None:
    @click.command()
    @spec_options
    def show(**given: Any) -> None:
        click.echo(run_spec(given).max_bad)

    said = [CliRunner().invoke(show, ["/in.csv", "--out", "/o", *more]).output for more in BOUNDS]
    assert said == ["\n", "0\n", "3\n"]


BOUNDS = ([], ["--max-bad", "0"], ["--max-bad", "3"])
