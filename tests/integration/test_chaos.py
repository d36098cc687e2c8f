"""The short form of `make chaos`: seeded faults at random moments under load."""

import pytest
from rich.console import Console

from chaos.kinds import LANE
from chaos.run import Size, run

SHORT = Size(requests=10_000, rounds=1, deadline_s=220)


@pytest.mark.timeout(300)
def test_every_accepted_request_ends_exactly_once_under_random_faults() -> None:
    assert run(LANE, SHORT, seed=1, console=Console(width=100, highlight=False))
