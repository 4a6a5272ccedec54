"""What the learner has reached: a small file under .workbook, rewritten whole at each change."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from checks.kit.lessons.file_lock import FileLock
from checks.kit.lessons.paths import STATE

FILE = STATE / "progress.json"

KNOWN_OUTCOMES = ("passed", "failed", "blocked", "error")
"""The values of report.model.Outcome."""


class Progress:
    """Several processes may change the file at once. Whatever in it has another shape counts as not there.

        {"lesson_01": {"checks": {"test_x": "passed"}, "recent": {"test_x": "failed"}, "hints": {"test_x": 2}}}

    `checks` are the outcomes of the last run of all checks: only that one says what the lesson has reached, because
    what passes in several runs of parts may be several states of the code. `recent` is the last outcome of each check.
    """

    def __init__(self, path: Path = FILE) -> None:
        self._path = path
        self._data = self._load()

    def outcomes(self, lesson: str) -> dict[str, str]:
        """How each check ended in the last run of all of the lesson's checks."""
        return self._of(lesson, "checks")

    def recent(self, lesson: str) -> dict[str, str]:
        """How each check ended when it last ran."""
        return self.outcomes(lesson) | self._of(lesson, "recent")

    def passed(self, lesson: str, checks: list[str]) -> bool:
        outcomes = self.outcomes(lesson)
        return bool(checks) and all(outcomes.get(name) == "passed" for name in checks)

    def record(self, lesson: str, check: str, outcome: str) -> None:
        """Notes how a check ended, which says nothing about the lesson yet."""
        with self._changing(lesson) as entry:
            entry["recent"] = self._of(lesson, "recent") | {check: outcome}

    def record_run(self, lesson: str, outcomes: Mapping[str, str]) -> None:
        """Notes how all checks of the lesson ended, for one state of the code."""
        with self._changing(lesson) as entry:
            entry["checks"] = dict(outcomes)
            entry.pop("recent", None)

    def hints(self, lesson: str, check: str) -> int:
        """How many hints about this check were given."""
        given = self._entry(lesson).get("hints")
        count = given.get(check, 0) if isinstance(given, dict) else 0
        return count if isinstance(count, int) else 0

    def give_hint(self, lesson: str, check: str) -> None:
        with self._changing(lesson) as entry:
            given = entry.get("hints")
            entry["hints"] = (given if isinstance(given, dict) else {}) | {check: self.hints(lesson, check) + 1}

    def skipped(self, lesson: str) -> bool:
        """Whether the lesson was passed straight away."""
        return bool(self._entry(lesson).get("skipped"))

    def skip(self, lesson: str) -> None:
        with self._changing(lesson) as entry:
            entry["skipped"] = True

    def forget(self, lesson: str) -> None:
        with self._changing(lesson) as entry:
            entry.clear()

    def _entry(self, lesson: str) -> dict[str, Any]:
        entry = self._data.get(lesson)
        return entry if isinstance(entry, dict) else {}

    def _of(self, lesson: str, kind: str) -> dict[str, str]:
        outcomes = self._entry(lesson).get(kind)
        if not isinstance(outcomes, dict):
            return {}
        return {name: outcome for name, outcome in outcomes.items() if outcome in KNOWN_OUTCOMES}

    def _load(self) -> dict[str, Any]:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}

    @contextlib.contextmanager
    def _changing(self, lesson: str) -> Iterator[dict[str, Any]]:
        """The lesson's entry as it is now in the file; what the block makes of it is written."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._alone():
            self._data = self._load()
            entry = self._entry(lesson)
            yield entry
            self._data[lesson] = entry
            if not entry:
                del self._data[lesson]
            self._save()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While the block lasts, no other process is in it; without locks, as on some network drives, it goes on."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                stack.enter_context(FileLock(self._path.with_suffix(".lock")).exclusive())
            yield

    def _save(self) -> None:
        # a name of its own for each writer, so that where there are no locks nobody moves a half-written file
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=self._path.parent, prefix=f"{self._path.stem}-", suffix=".new", delete=False
        ) as fresh:
            try:
                json.dump(self._data, fresh, indent=1)
            except BaseException:  # the disk is full, or Ctrl-C
                Path(fresh.name).unlink(missing_ok=True)
                raise
        Path(fresh.name).replace(self._path)  # whole or not at all, also when the run is killed here
