"""worker/LANE.md names the scripts and the invariants that there are."""

import re
from pathlib import Path

from lane_invariants import INVARIANTS
from lane_world import Network
from reclane_worker.settings import WorkerSettings

PAGE = (Path(__file__).parents[2] / "worker" / "LANE.md").read_text("utf-8")


def test_every_invariant_of_the_page_is_checked_and_every_check_stands_there() -> None:
    rows = re.findall(r"^\| (I\d+) \| .+ \| `(i\d+_\w+)` \|$", PAGE, re.MULTILINE)
    assert dict(rows) == {number: check.__name__ for number, check in INVARIANTS.items()}
    assert [number for number, _ in rows] == [f"I{n + 1}" for n in range(len(rows))]


def test_every_script_stands_among_the_transitions_and_among_the_lost_replies() -> None:
    moves, lost = PAGE.split("## One message")[1], PAGE.split("## Lost replies")[1]
    for script in Network.texts(WorkerSettings()).keys() - {"mark"}:
        assert f"`{script}`" in moves, script
        assert f"`{script}`" in lost, script
