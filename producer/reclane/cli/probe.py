"""`reclane probe`: the worker's health for HEALTHCHECK and Kubernetes exec probes."""

import json
from dataclasses import asdict

import click

from reclane import probe as health
from reclane.settings import Settings


@click.command()
@click.argument("kind", type=click.Choice(["live", "ready"]))
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.05, max=60),
    default=3.0,
    show_default=True,
    help="Seconds to wait for Redis, all in all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON on stdout.")
@click.pass_context
def probe(ctx: click.Context, kind: health.Kind, timeout_s: float, as_json: bool) -> None:
    """Ask whether the worker that RECLANE_ID_FILE names is LIVE or READY; exit code 0 or 1.

    Live: it holds its lease, or Redis is away, which a restart would not mend. Ready: its model
    is loaded, it holds its lease, and Redis answers and takes writes.
    """
    verdict = health.probe(kind, Settings.load(), timeout_s)
    if as_json:
        click.echo(json.dumps(asdict(verdict)))
    label = kind if verdict.ok else f"not {kind}"
    click.echo(f"{label}: {verdict.reason}", err=True)
    ctx.exit(0 if verdict.ok else 1)
