"""`reclane recommend`, `submit` and `wait`: ask, ask now and read later, read."""

from collections.abc import Iterator
from typing import IO, Any

import click

from reclane.cli import exits, options, printing
from reclane.cli.lines import kept, read_requests, unique_ids
from reclane.client import Client, Handle
from reclane.contract import Recommendation, parse_request
from reclane.errors import ReclaneError, ResultTimeout, UnknownRequest


@click.command()
@options.request_options
@options.timeout
@options.as_json
def recommend(timeout: float, as_json: bool, **given: Any) -> None:
    """Ask for recommendations and print them, best first.

    QUERY is what you would like to see next, in plain words; - reads it from stdin. It may be
    left out with --history or --user. Ctrl-C cancels the request; after a timeout it goes on, and
    `reclane wait` takes the id that is then shown. With --json an error is a document, too.
    """
    try:
        answer = _ask(given, timeout)
    except ReclaneError as error:
        if as_json:
            printing.document({"error": printing.error_fields(error)})
        raise
    if as_json:
        printing.document(answer.model_dump(mode="json"))
    else:
        printing.answer(answer)


def _ask(given: dict[str, Any], timeout: float) -> Recommendation:
    request = parse_request(options.request_fields(given))
    with Client() as client:
        handle = client.submit(request)
        try:
            return handle.result(timeout)
        except KeyboardInterrupt:
            handle.cancel()
            raise


@click.command()
@options.request_options
@click.option(
    "--from", "source", type=click.File("rb"), help="Requests, a JSON object a line; - is stdin."
)
@click.option("--key", "idempotency_key", help="Names the result: a repeat reads the same one.")
@click.option("--keep", is_flag=True, help="Keep answers until they expire, also once read.")
@options.as_json
def submit(source: IO[bytes] | None, keep: bool, as_json: bool, **given: Any) -> None:
    """Enqueue requests and print their ids, one a line; `reclane wait` reads the answers.

    With --from, the other options hold for every line that does not say otherwise. Everything
    is validated before anything is enqueued. Should Redis go away half-way (exit code 69), some
    may be enqueued all the same: with an idempotency_key in each line a repeat is safe.
    """
    if source is None:
        requests = [parse_request(kept(options.request_fields(given), keep))]
    else:
        common = {name: value for name, value in given.items() if value not in (None, [], {})}
        if common.keys() & {"query", "idempotency_key"}:
            raise click.UsageError("with --from, queries and keys stand in the file")
        requests = read_requests(source, common, keep)
    with Client() as client:
        for task_id in client.enqueue(requests):
            printing.line({"id": task_id}) if as_json else click.echo(task_id)


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@options.timeout
@options.as_json
@click.pass_context
def wait(ctx: click.Context, ids: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Await the answers to requests that were submitted before, and print each as it comes.

    An ID of - reads more from stdin, one a line. An answer that was read is forgotten on the
    server, unless it was submitted with --keep or --key. The exit code is that of the first id
    without an answer.
    """
    wanted = unique_ids(ids)
    codes: dict[str, int] = {}
    with Client() as client:
        for done, result in _results(client, wanted, timeout):
            codes[done] = exits.of(result) if isinstance(result, ReclaneError) else exits.OK
            _print_result(done, result, as_json, many=len(wanted) > 1)
    ctx.exit(next((codes[i] for i in wanted if codes[i]), exits.OK))


def _results(client: Client, ids: list[str], timeout: float) -> Iterator[tuple[str, Any]]:
    """Each id with its answer or its error, as they come; those still missing at the end."""
    missing: dict[str, Handle] = {}
    for task_id in ids:
        try:
            missing[task_id] = client.handle(task_id)
        except UnknownRequest as error:
            yield task_id, error
    try:
        for done in client.as_completed(list(missing.values()), timeout):
            del missing[done.id]
            try:
                yield done.id, done.result(0)
            except ReclaneError as error:
                yield done.id, error
    except ResultTimeout:
        for task_id in missing:
            yield task_id, ResultTimeout(f"no answer within {timeout:g} s")


def _print_result(task_id: str, result: Any, as_json: bool, many: bool) -> None:
    if isinstance(result, ReclaneError):
        if as_json:
            printing.line({"id": task_id, "error": printing.error_fields(result)})
        click.echo(printing.printable(f"reclane: {task_id}: {result}"), err=True)
    elif as_json:
        printing.line({"id": task_id, "answer": result.model_dump(mode="json")})
    else:
        if many:
            click.echo(task_id)
        printing.answer(result)
