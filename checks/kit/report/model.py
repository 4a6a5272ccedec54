"""What a check found out, as data. Terminal, notebook, JSON and JUnit are drawn from this and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

STUMBLED = "The check itself stumbled"
"""Begins what is said of an error that no check foresees."""


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    BLOCKED = "blocked"
    """Not run, because a check that it needs did not pass."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a check failed: what we saw, why it matters, and the notebook section that explains it."""

    happened: str
    because: str
    read: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the learner's code; `path` is relative to the checkout where it lies inside it."""

    path: str
    line: int
    function: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A statement that crossed the wire during the check. `connection` counts from 1 within the check."""

    connection: int
    text: str
    result: str


@dataclass(slots=True)
class Result:
    """One check. `seconds` is wall time, for the reader's interest only."""

    name: str
    title: str
    outcome: Outcome = Outcome.PASSED
    finding: Finding | None = None
    did: list[str] = field(default_factory=list)
    wire: list[Crossing] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    log: str = ""
    blocked_by: str = ""
    seconds: float = 0.0

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Result:
        """The result that `asdict` took apart."""
        finding = raw["finding"]
        return cls(
            **raw
            | {
                "outcome": Outcome(raw["outcome"]),
                "finding": Finding(**finding) if finding else None,
                "wire": [Crossing(**one) for one in raw["wire"]],
                "places": [Place(**one) for one in raw["places"]],
            }
        )


@dataclass(slots=True)
class Report:
    """All checks of one lesson against one target. `notebook` is empty where the lesson has none."""

    lesson: int
    title: str
    target: str
    notebook: str = ""
    postgres: str = ""
    results: list[Result] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        return sum(result.outcome is outcome for result in self.results)

    @property
    def passed(self) -> bool:
        return bool(self.results) and all(result.outcome is Outcome.PASSED for result in self.results)

    def tally(self, total: int = 0) -> str:
        """How many checks pass, of `total` where fewer than these have run."""
        ran = len(self.results)
        missing = self.count(Outcome.BLOCKED) + max(total - ran, 0)
        return f"{self.count(Outcome.PASSED)} of {max(ran, total)} checks pass" + (
            f", {missing} not run" if missing else ""
        )

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Report:
        """The report that `to_dict` took apart."""
        return cls(**raw | {"results": [Result.from_dict(one) for one in raw["results"]]})

    def to_dict(self) -> dict[str, Any]:
        """For `--report-json`: `{"lesson", "title", "target", "notebook", "postgres", "results": [...]}`."""
        return asdict(self)


class Refuted(AssertionError):
    """A check's expectation did not hold."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.happened)
        self.finding = finding


def expect(holds: object, happened: str, *, because: str, read: str = "") -> None:
    """States what must hold.

    `happened` says what we saw instead, with the numbers of this run; `because` says why it matters
    and what to think about, not the answer; `read` is the heading of the notebook section.
    """
    if not holds:
        raise Refuted(Finding(happened, because, read))
