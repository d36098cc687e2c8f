"""`reclane beat`: Celery's beat, which begins the runs of schedules when they are due."""

import click
import redbeat  # noqa: F401  where it is missing, `load_command` says how to add it

from reclane.cli import options


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog="Anything else is passed to `celery beat`, for instance --loglevel DEBUG.",
)
@click.option(
    "--max-interval",
    type=click.IntRange(1, 60),
    default=5,
    show_default=True,
    help="Seconds until a change is seen. A dead beat is missed after six times that.",
)
@click.pass_context
def beat(ctx: click.Context, max_interval: int) -> None:
    """Begin the runs of `reclane schedule` when they are due. Of several, one works."""
    with options.server() as (client, settings):
        if client.exists(settings.keys.beat_lock):
            click.echo("reclane: another beat has the lock; this one waits until it ends", err=True)
    from celery.bin.celery import celery

    extra = list(ctx.args)
    if not any(a in ("-l", "--loglevel") or a.startswith("--loglevel=") for a in extra):
        extra += ["--loglevel", "INFO"]
    command = ["-A", "reclane_worker", "beat", "-S", "reclane_worker.bulk.beat:BulkScheduler"]
    command += ["--max-interval", str(max_interval), "--pidfile=", *extra]
    ctx.exit(celery.main(args=command, standalone_mode=False) or 0)
