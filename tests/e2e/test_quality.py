"""The gate: recommendations on the catalog that ships are no worse than the run that is kept."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from reclane.cli import cli
from reclane_worker.demo import FIELDS, ITEMS, MODEL
from reclane_worker.evaluation.plan import read_plan

KEPT = Path(__file__).parents[1] / "quality"
TOLERANCE = "0.01"  # another processor rounds otherwise, which may turn two items around


@pytest.mark.timeout(400)
def test_the_demos_quality_has_not_fallen(demo_catalog: Path, tmp_path: Path) -> None:
    """Where a change is meant, keep its run instead: `make quality`."""
    (source,) = read_plan(KEPT / "plan.toml").values()
    assert (source.items.resolve(), source.fields) == (ITEMS, FIELDS)
    plan = tmp_path / "built.toml"  # the same plan, with the catalog that other tests use, too
    plan.write_text(f'[demo]\nitems = "{demo_catalog}"\nrequests = "{source.requests.resolve()}"\n')
    options = ["--against", str(KEPT / "run.json"), "--tolerance", TOLERANCE]
    done = CliRunner().invoke(cli, ["eval", "--plan", str(plan), "--model", MODEL, *options])
    assert done.exit_code == 0, f"{done.output}\n{done.exception}"
