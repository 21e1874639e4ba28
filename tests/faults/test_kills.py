"""A few of the kills of kills.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_killed_commands_end_as_if_nothing_had_been(tmp_path: Path) -> None:
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "3", "--seed", "1", "--out", str(tmp_path / "kills")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT EQUAL" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith("endings equal")
