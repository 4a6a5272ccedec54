"""What the learner has reached: a small file under .workbook, rewritten whole after each check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checks.kit.catalogue import STATE

FILE = STATE / "progress.json"


class Progress:
    """`{"lesson_01": {"checks": {"test_x": "passed"}, "hints": {"test_x": 2}}}`; a broken file counts as empty."""

    def __init__(self, path: Path = FILE) -> None:
        self._path = path
        self._data: dict[str, Any] = {}
        self._load()

    def _load(self) -> None:
        try:
            self._data = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._data = {}

    def outcomes(self, lesson: str) -> dict[str, str]:
        """The last outcome of each check that ran."""
        return dict(self._data.get(lesson, {}).get("checks", {}))

    def passed(self, lesson: str, checks: list[str]) -> bool:
        outcomes = self.outcomes(lesson)
        return bool(checks) and all(outcomes.get(name) == "passed" for name in checks)

    def record(self, lesson: str, check: str, outcome: str) -> None:
        self._load()  # a notebook may have graded another lesson meanwhile
        self._data.setdefault(lesson, {}).setdefault("checks", {})[check] = outcome
        self._save()

    def hints(self, lesson: str, check: str) -> int:
        """How many hints about this check were given."""
        return int(self._data.get(lesson, {}).get("hints", {}).get(check, 0))

    def give_hint(self, lesson: str, check: str) -> None:
        self._load()
        self._data.setdefault(lesson, {}).setdefault("hints", {})[check] = self.hints(lesson, check) + 1
        self._save()

    def skipped(self, lesson: str) -> bool:
        """Whether the lesson was passed straight away."""
        return bool(self._data.get(lesson, {}).get("skipped"))

    def skip(self, lesson: str) -> None:
        self._load()
        self._data.setdefault(lesson, {})["skipped"] = True
        self._save()

    def forget(self, lesson: str) -> None:
        self._load()
        self._data.pop(lesson, None)
        self._save()

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self._data, indent=1), encoding="utf-8")
        fresh.replace(self._path)  # whole or not at all, also when the run is killed here
