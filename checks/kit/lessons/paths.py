"""Where the workbook lies on this machine."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The checkout: the folder that holds lessons/, solutions/, checks/ and notebooks/."""

STATE = ROOT / ".workbook"
"""Everything the workbook itself writes: server data, progress, copies made by `workbook reset`."""

RELEASES = STATE / "releases"
"""Other releases of the app that run beside the learner's: lesson_NN/DIGEST, each named by its content."""


def display_path(path: Path, base: Path = ROOT) -> str:
    """A path as messages show it: relative to `base` (the checkout) if it lies inside."""
    return str(path.relative_to(base) if path.is_relative_to(base) and path != base else path)
