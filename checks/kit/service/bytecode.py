"""Keeps compiled files from outliving their sources."""

from __future__ import annotations

import contextlib
from pathlib import Path


def drop_stale(folder: Path, pycache: Path) -> None:
    """Deletes from `pycache` what was compiled before the last change of its source below `folder`.

    Python compares whole seconds and the size. A learner who saves twice within a second, and changes a 3 into a 4,
    would be graded for the 3.
    """
    for compiled in (pycache / folder.relative_to(folder.anchor)).rglob("*.pyc"):
        source = folder.anchor / compiled.parent.relative_to(pycache) / f"{compiled.name.partition('.')[0]}.py"
        with contextlib.suppress(OSError):  # one of them has gone meanwhile
            if compiled.stat().st_mtime_ns < source.stat().st_mtime_ns:
                compiled.unlink()
