"""`reclane worker`: the same as `celery -A reclane_worker worker -Q reclane.tasks`."""

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
    from reclane_worker.app import app

    extra = list(ctx.args)
    if not any(a in ("-n", "--hostname") or a.startswith("--hostname=") for a in extra):
        extra += ["--hostname", f"reclane-{os.getpid()}@%h"]
    if not any(a in ("-l", "--loglevel") or a.startswith("--loglevel=") for a in extra):
        extra += ["--loglevel", "INFO"]
    app.worker_main(["worker", "-Q", names.TASKS_QUEUE, *extra])
