"""How long each case took last time: a small file under .workbook."""

from __future__ import annotations

import json
from collections.abc import Iterable

from checks.kit.authoring.cases import Case
from checks.kit.lessons.paths import STATE

FILE = STATE / "verify.json"
UNKNOWN = 4.0
"""Seconds assumed where no case of any lesson was run before."""


class Durations:
    """Seconds by case, as in the run before; a case that is new is taken for an average one of its lesson."""

    def __init__(self) -> None:
        try:
            self._seconds: dict[str, float] = json.loads(FILE.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._seconds = {}

    def expected(self, case: Case) -> float:
        if (known := self._seconds.get(case.key)) is not None:
            return known
        alike = [seconds for key, seconds in self._seconds.items() if key.startswith(f"{case.lesson.name}/")]
        alike = alike or list(self._seconds.values())
        return sum(alike) / len(alike) if alike else UNKNOWN

    def longest_first(self, todo: Iterable[Case]) -> list[Case]:
        """So that no core waits at the end for a long case that began last."""
        return sorted(todo, key=self.expected, reverse=True)

    def keep(self, case: Case, seconds: float) -> None:
        self._seconds[case.key] = round(seconds, 2)

    def save(self) -> None:
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_text(json.dumps(self._seconds, indent=0, sort_keys=True), encoding="utf-8")
