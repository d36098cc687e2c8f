"""`reclane doctor`: is everything as it should be, and what to do where it is not."""

from dataclasses import asdict
from itertools import groupby

import click

from reclane.cli import exits, options, printing
from reclane.operations.examining import Examination, examine
from reclane.operations.findings import Level, has_problems

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red", Level.UNKNOWN: "cyan"}


@click.command()
@options.as_json
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check Redis, settings, workers and queues, each finding with its fix.

    Reads only. Exit code 1 where there is a problem; warnings and what this user may not look at
    (unknown) leave it at 0.
    """
    found = examine()
    if as_json:
        printing.document(
            {
                "findings": [asdict(finding) for finding in found.findings],
                "settings": [asdict(setting) for setting in found.settings],
            }
        )
    else:
        _print(found)
    ctx.exit(exits.ERROR if has_problems(found.findings) else exits.OK)


def _print(found: Examination) -> None:
    said = ""
    for area, findings in groupby(found.findings, lambda finding: finding.area):
        click.echo(area)
        for one in findings:
            level = click.style(f"{one.level.value:<8}", fg=_COLOURS[one.level])
            click.echo(f"  {level} {printing.printable(f'{one.name}: {one.text}')}")
            if one.fix and one.fix != said:
                click.echo(f"           fix: {printing.printable(one.fix)}")
            said = one.fix
    if found.settings:
        click.echo("settings")
        printing.table([["", s.name, s.value or '""', s.source] for s in found.settings])
