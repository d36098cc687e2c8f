"""`reclane catalog publish`, `rollback` and `published`: what running workers serve."""

import os
import time
from pathlib import Path
from typing import Any, Final

import click

from reclane.cli import exits, options, printing
from reclane.publishing import Follower, Published, followers
from reclane.publishing import publish as publish_version
from reclane.publishing import published as all_published
from reclane.publishing import rollback as roll_back
from reclane_worker.cli.items import folder_argument
from reclane_worker.manifest import read_manifest, verify

_LOOK_S: Final = 0.2

wait_option = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to wait until all workers serve it; 0 does not look.",
)


@click.command()
@folder_argument
@click.option("--name", help="The catalog's name in RECLANE_CATALOG; the folder's unless told.")
@wait_option
@options.as_json
def publish(folder: Path, name: str | None, wait_s: float, as_json: bool) -> None:
    """Have running workers serve FOLDER as it is now, and those that start from now on.

    Workers must find it under the same path. They load it while they go on answering, and no batch
    mixes two versions. Exit code 1: not all workers serve it.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  # workers may see the link alone
    manifest = read_manifest(folder)
    verify(folder, manifest)
    name = name or folder.name
    with options.server() as (client, settings):
        found = publish_version(client, settings.keys, name, str(folder), manifest.version)
        _tell(client, settings.keys, name, found, wait_s, as_json)


@click.command()
@click.argument("name")
@wait_option
@options.as_json
def rollback(name: str, wait_s: float, as_json: bool) -> None:
    """Have workers serve what was published as NAME before."""
    with options.server() as (client, settings):
        found = roll_back(client, settings.keys, name)
        _tell(client, settings.keys, name, found, wait_s, as_json)


@click.command()
@options.as_json
def published(as_json: bool) -> None:
    """What is published under each name, and how many workers serve it."""
    with options.server() as (client, settings):
        rows = [
            (name, one, followers(client, settings.keys, name, one.now)[0])
            for name, one in all_published(client, settings.keys).items()
        ]
    if as_json:
        printing.document([_fields(*row) for row in rows])
        return
    table: list[list[object]] = [["name", "version", "folder", "published", "served by", "before"]]
    for name, one, workers in rows:
        now, before = one.now, one.earlier[0].version if one.earlier else "-"
        served = f"{_serving(workers)} of {len(workers)}"
        table.append([name, now.version, now.folder, printing.moment(now.at), served, before])
    printing.table(table)


def _tell(
    client: Any, keys: Any, name: str, found: Published, wait_s: float, as_json: bool
) -> None:
    """Wait until the workers have done what they can, and say what that was."""
    give_up = time.monotonic() + wait_s
    workers, others = followers(client, keys, name, found.now) if wait_s else ([], 0)
    while any(one.state == "loading" for one in workers) and time.monotonic() < give_up:
        time.sleep(_LOOK_S)
        workers, others = followers(client, keys, name, found.now)
    if as_json:
        printing.document(_fields(name, found, workers))
    else:
        click.echo(f"{name}: version {found.now.version} is published")
        if wait_s:
            _explain(name, workers, others)
    if _serving(workers) < len(workers) or (others and not workers):
        click.get_current_context().exit(exits.ERROR)


def _explain(name: str, workers: list[Follower], others: int) -> None:
    for one in workers:
        if one.state != "serves":
            why = one.why or "it has not served it in time; look at its log, or wait longer"
            click.echo(printing.printable(f"reclane: {one.worker}: {why}"), err=True)
    if workers:
        click.echo(f"{_serving(workers)} of {len(workers)} workers serve it")
    elif others:
        click.echo(f"reclane: none of {others} workers has a catalog {name!r}", err=True)
    else:
        click.echo("no worker runs now; those that start will serve it")


def _serving(workers: list[Follower]) -> int:
    return sum(one.state == "serves" for one in workers)


def _fields(name: str, one: Published, workers: list[Follower]) -> dict[str, Any]:
    told = [{"worker": each.worker, "state": each.state, "why": each.why} for each in workers]
    return {"name": name, **one.model_dump(mode="json"), "workers": told}
