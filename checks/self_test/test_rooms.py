"""The rooms of the kit: imports run down the list in pyproject.toml, and never in a circle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from checks.kit.lessons.paths import ROOT


def test_imports_keep_to_the_order_of_the_rooms() -> None:
    command = [Path(sys.executable).parent / "lint-imports", "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
