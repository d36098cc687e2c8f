"""Whatever is killed amid a change: the catalog is the one before or the one after, whole."""

import os
import subprocess
import sys
from pathlib import Path

from reclane_worker.catalog import load_catalog
from reclane_worker.changing import upsert
from reclane_worker.encoder import Encoder
from reclane_worker.manifest import read_manifest
from reclane_worker.reading import SourceItem

# Forks a process for each step: importing takes much longer than changing. A step is whatever
# Python changes or flushes in the folder, as its audit events tell; what it only reads is none.
CHANGE = """
import os, shutil, signal, sys
from pathlib import Path
import torch
from reclane_worker.changing import compact, upsert
from reclane_worker.encoder import load_encoder
from reclane_worker.reading import SourceItem
from reclane_worker.settings import WorkerSettings

torch.set_num_threads(1)
encoder = load_encoder(WorkerSettings(model="hash:384", device="cpu"))
changes = {
    "upsert": lambda folder: upsert(
        folder, [SourceItem("new", "new", "", {}), SourceItem("i00", "changed", "", {})], encoder
    ),
    "compact": compact,
}

def change(kind, folder, last):
    steps = 0
    def seen(event, arguments):
        nonlocal steps
        paths = [one for one in arguments if isinstance(one, (str, os.PathLike))]
        if event in ("os.listdir", "os.scandir", "shutil.rmtree"):
            return
        if event == "open" and arguments[1] and not arguments[2] & os.O_ACCMODE:
            return
        if any(str(folder) in os.fspath(one) for one in paths):
            steps += 1
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(seen)
    changes[kind](folder)

def killed(kind, folder, step):
    child = os.fork()
    if not child:
        code = 1
        try:
            change(kind, folder, step)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"{kind} failed at step {step}")
    return os.WIFSIGNALED(status)

whole, scratch = map(Path, sys.argv[1:])
for kind in changes:
    for step in range(1, 1_000):
        folder = scratch / kind / str(step)
        shutil.copytree(whole, folder, copy_function=os.link)
        if not killed(kind, folder, step):
            break
    print(kind, step)
    whole = folder
"""


def test_a_change_that_is_killed_at_any_step_leaves_a_whole_catalog_that_can_be_changed(
    shop_folder: Path, encoder: Encoder, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHANGE, str(shop_folder), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    before = shop_folder
    steps = [line.split() for line in done.stdout.splitlines()]
    assert [kind for kind, _ in steps] == ["upsert", "compact"]
    for kind, last in steps:
        assert int(last) > 10
        after = tmp_path / kind / last
        seen = set()
        for step in range(1, int(last)):
            folder = tmp_path / kind / str(step)
            seen.add(load_catalog("shop", folder, encoder).version)
            if step % 5 == 0:
                upsert(folder, [SourceItem("later", "later", "", {})], encoder)
                assert "later" in load_catalog("shop", folder, encoder).positions
                assert not [*folder.rglob(".new-*")]
        assert seen == {read_manifest(one).version for one in (before, after)}
        assert len(seen) == 2
        before = after
