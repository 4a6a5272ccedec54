"""Grades on disk, a JSON file for each job: what an interrupted run does not have to grade again."""

from __future__ import annotations

import json
import os
from pathlib import Path

from checks.kit.submissions.jobs import Job, from_dict, to_dict
from checks.kit.submissions.model import Grade


class GradeCache:
    """The grades in one folder, which need not exist yet. Several runs may use it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, job: Job) -> Grade | None:
        """The grade that the same files got with the same settings; None if there is none, or it cannot be read."""
        try:
            return from_dict(json.loads(self._path(job).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def save(self, job: Job, grade: Grade) -> None:
        """Writes the grade. If the run is killed here, the file is there as a whole or not at all."""
        path = self._path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}.new")  # two runs may share the folder
        new.write_text(json.dumps(to_dict(grade), indent=1), encoding="utf-8")
        new.replace(path)

    def _path(self, job: Job) -> Path:
        return self._folder / f"{job.key}.json"
