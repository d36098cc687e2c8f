"""`python -m chaos`: the long form; `--stock` drives stock Celery beside it."""

import signal
import sys

import click
from rich.console import Console

from chaos.kinds import LANE, STOCK
from chaos.run import Size, run


@click.command()
@click.option("--requests", default=200_000, show_default=True, help="At least so many.")
@click.option("--rounds", default=10, show_default=True, help="At least; 6 SIGKILLs in each.")
@click.option("--seed", default=1, show_default=True, help="Of the faults and requests.")
@click.option("--deadline", default=2_700.0, show_default=True, help="Seconds.")
@click.option("--stock", is_flag=True, help="What stock Celery makes of it, in place of the lane.")
def main(requests: int, rounds: int, seed: int, deadline: float, stock: bool) -> None:
    """Put the lane under faults; exit with 1 if its promise was broken."""
    # So that everything is stopped; a shell's background jobs start with SIGINT ignored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    console = Console(width=100, highlight=False)
    size = Size(requests, rounds, deadline)
    kinds = STOCK if stock else (LANE,)
    kept = [run(kind, size, seed, console) for kind in kinds]  # all of them, whatever is found
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
