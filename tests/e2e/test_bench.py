"""`reclane bench bulk` on a few rows: that it measures, not how fast."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import DEADLINE_S

TEXTS = [f"a quiet novel about the sea, number {number}" for number in range(30)]


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "reclane.cli", "bench", "bulk", "--repeats", "1", *arguments],
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE_S,
        env=os.environ | {"COLUMNS": "200"},
        check=False,
    )


@pytest.mark.long
def test_requests_of_ones_own_are_measured_with_what_has_no_text(tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    lines = [json.dumps({"query": text, "relevant": ["any"]}) for text in TEXTS]
    asked.write_text("\n".join(lines), "utf-8")

    parts = ("--part", "speed", "--part", "histories")
    ended = bench(*parts, "--rows", "20", "--requests", str(asked))

    assert ended.returncode == 0, ended.stderr
    assert "a run of 20 rows of 1" in ended.stdout  # some ten tokens each
    assert re.search(r"run / sentence-transformers +\S+ \(\S+\) +>= 0\.97", ended.stdout)
    assert re.search(r"80 histories of 20, \d+ items +[\d,]+ rows/s", ended.stdout)


@pytest.mark.parametrize(
    ("line", "reason"), [("{}", ": write an object with `query`"), ("no JSON", " is no JSON")]
)
def test_requests_that_cannot_be_read_are_named(tmp_path: Path, line: str, reason: str) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text(f"{line}\n", "utf-8")

    ended = bench("--part", "speed", "--requests", str(asked))

    assert ended.returncode == 1
    assert f"{asked}, line 1{reason}" in ended.stderr.replace("\n", "")
