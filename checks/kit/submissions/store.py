"""Marks on disk, a file for each unit: what an interrupted run need not do again."""

from __future__ import annotations

import json
import os
from pathlib import Path

from checks.kit.submissions.model import Mark
from checks.kit.submissions.units import Unit, from_dict, to_dict


class Store:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, unit: Unit) -> Mark | None:
        """The mark that the same files got under the same rules; None if there is none that can be read."""
        try:
            return from_dict(json.loads(self._path(unit).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def save(self, unit: Unit, mark: Mark) -> None:
        """Whole or not at all, also when the run is killed here."""
        path = self._path(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}.new")  # two runs may share the folder
        fresh.write_text(json.dumps(to_dict(mark), indent=1), encoding="utf-8")
        fresh.replace(path)

    def _path(self, unit: Unit) -> Path:
        return self._folder / f"{unit.key}.json"
