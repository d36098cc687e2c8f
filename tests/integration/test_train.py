"""`reclane train` with a real, small model: it learns, is refused, is killed, and serves."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from reclane import Client
from reclane_worker.building import build_catalog
from reclane_worker.encoder import load_encoder
from reclane_worker.manifest import read_manifest
from reclane_worker.reading import Columns, read_items
from reclane_worker.settings import WorkerSettings
from small_model import make_small_model, write_world
from support import StartWorker, eventually

# Importing torch alone takes its time where other tests run beside.
DEADLINE_S = 240.0
LEARNING = ("--epochs", "25", "--learning-rate", "3e-3", "--batch-tokens", "600")

pytestmark = pytest.mark.timeout(2 * DEADLINE_S)


@dataclass(frozen=True)
class World:
    """A small model, and files to train it on."""

    model: Path
    items: Path
    requests: Path
    validation: Path

    def command(self, out: Path, *more: str) -> list[str]:
        return [
            *(sys.executable, "-m", "reclane.cli", "train", str(self.items), str(self.requests)),
            *("--validation", str(self.validation), "--model", str(self.model)),
            *("--out", str(out), *more),
        ]


# So small a model waits for its threads more than they help.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RECLANE_")},
    "OMP_NUM_THREADS": "1",
}


def run(command: Sequence[str], code: int = 0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE_S, env=ENVIRONMENT
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    return World(make_small_model(folder / "small"), *write_world(folder))


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "model"
    done = run(world.command(out, *LEARNING))
    assert str(out) in done.stdout
    assert "held_out" not in done.stdout  # the trainer's own figures
    return out


def figures(folder: Path) -> dict[str, tuple[float, float]]:
    """Before and after, by measure, as the card has them."""
    rows = [line.split("|")[1:4] for line in (folder / "README.md").read_text().splitlines()]
    cells = [[cell.strip() for cell in row] for row in rows if len(row) == 3]
    return {n: (float(b), float(a)) for n, b, a in cells if n in ("R@1", "R@10", "NDCG@10")}


def test_a_model_learns_what_requests_mean(trained: Path) -> None:
    """Pairs that it never saw together; no word of a request is in an item."""
    before, after = figures(trained)["R@1"]
    assert before < 0.3
    assert after > 0.7
    assert sorted(path.suffix for path in trained.rglob("*") if path.is_file()) == [
        *[".json"] * (len([*trained.rglob("*.json")])),
        ".md",
        ".safetensors",
    ]
    assert [path.name for path in trained.parent.iterdir()] == [trained.name]


def test_the_card_holds_no_text_of_the_data(trained: Path, world: World) -> None:
    card = (trained / "README.md").read_text()
    rows = [*map(json.loads, world.requests.read_text().splitlines())]
    texts = [row["query"] for row in rows] + [row["relevant"][0] for row in rows]
    assert not any(text in card for text in texts)


def test_a_trained_folder_serves_through_the_worker(
    trained: Path, world: World, tmp_path: Path, start_worker: StartWorker, client: Client
) -> None:
    encoder = load_encoder(WorkerSettings.load(model=str(trained)))
    items = read_items(world.items, Columns(), pytest.fail)
    build_catalog(items, tmp_path / "catalog", encoder)
    catalog = f"world={tmp_path / 'catalog'}"
    start_worker({"RECLANE_MODEL": str(trained), "RECLANE_CATALOG": catalog})
    answer = client.recommend("something like qhue3 qform5 please", k=3, timeout=60)
    assert answer.items[0].id == "hue3-form5"
    assert answer.versions.model == f"{trained.name}@{encoder.revision}"
    assert read_manifest(tmp_path / "catalog").model_revision == encoder.revision


def test_a_model_that_got_worse_is_put_aside(trained: Path, world: World, tmp_path: Path) -> None:
    worse = World(trained, world.items, world.requests, world.validation)
    out = tmp_path / "worse"
    done = run(worse.command(out, "--epochs", "1", "--learning-rate", "1e6"), code=1)
    assert "NDCG@10 fell" in done.stderr or "not numbers" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["worse.rejected"]
    assert "Rejected, do not serve it" in (tmp_path / "worse.rejected" / "README.md").read_text()


@pytest.mark.long
def test_a_killed_training_goes_on_from_its_checkpoint(
    trained: Path, world: World, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    checkpoints = tmp_path / ".model.training" / "checkpoints"
    command = world.command(out, *LEARNING)
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            eventually(
                lambda: any(checkpoints.glob("checkpoint-*/trainer_state.json")),
                "a checkpoint",
                DEADLINE_S,
            )
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    assert "--resume" in run(command, code=1).stderr
    done = run([*command, "--resume"])
    assert "on from step" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    weights = [(folder / "model.safetensors").read_bytes() for folder in (trained, out)]
    assert weights[0] == weights[1]  # as if nobody had killed it


def test_a_model_without_weights_to_train_is_refused(world: World, tmp_path: Path) -> None:
    stand_in = World(Path("hash:64"), world.items, world.requests, world.validation)
    done = run(stand_in.command(tmp_path / "model"), code=1)
    assert "cannot be trained" in done.stderr
    assert not list(tmp_path.iterdir())
