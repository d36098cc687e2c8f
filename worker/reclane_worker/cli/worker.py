"""`reclane worker`: the same as `celery -A reclane_worker worker` with the right queues."""

import os

import click

from reclane import names


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog="Anything else is passed to `celery worker`, for instance --loglevel DEBUG.",
)
@click.option("--model", help="Model id or folder; sets RECLANE_MODEL.")
@click.option("--catalog", help="Built folder, or name=folder,...; sets RECLANE_CATALOG.")
@click.option("--redis-url", help="Broker and results; sets RECLANE_REDIS_URL.")
@click.pass_context
def worker(
    ctx: click.Context, model: str | None, catalog: str | None, redis_url: str | None
) -> None:
    """Run a worker: Celery with the lane. Settings come from RECLANE_* or these options."""
    given = {"RECLANE_MODEL": model, "RECLANE_CATALOG": catalog, "RECLANE_REDIS_URL": redis_url}
    os.environ.update({name: value for name, value in given.items() if value is not None})
    from celery.bin.celery import celery

    from reclane_worker.settings import WorkerSettings

    extra = list(ctx.args)
    if not any(a in ("-n", "--hostname") or a.startswith("--hostname=") for a in extra):
        extra += ["--hostname", f"reclane-{os.getpid()}@%h"]
    if not any(a in ("-l", "--loglevel") or a.startswith("--loglevel=") for a in extra):
        extra += ["--loglevel", "INFO"]
    queues = [names.TASKS_QUEUE]
    if not WorkerSettings.from_environment().lane:  # then Celery itself must take the requests
        queues += names.LANE_QUEUES
    # Not app.worker_main: it loses the exit code, and a supervisor must see a failure to start.
    command = ["-A", "reclane_worker", "worker", "-Q", ",".join(queues), *extra]
    ctx.exit(celery.main(args=command, standalone_mode=False) or 0)
