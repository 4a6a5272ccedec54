"""A verdict as data. Terminal, notebook, JSON, JUnit and Gradescope are drawn from this and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from checks.kit.report.timeline import Timeline
from checks.kit.testbed.evidence import Evidence, Line


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    BLOCKED = "blocked"
    """Not run, because a check that it needs did not pass."""
    ERROR = "error"
    """A fault of the check or of the machine: it says nothing about the learner's code."""

    @property
    def is_red(self) -> bool:
        """Whether the check ran and did not pass, so that there is a verdict to read."""
        return self in (Outcome.FAILED, Outcome.ERROR)


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a check failed: what we saw, why it matters, and the notebook section that explains it."""

    happened: str
    because: str
    section: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the learner's code; `path` is relative to the checkout where it lies inside it."""

    path: str
    line: int
    function: str
    error: str = ""


@dataclass(slots=True)
class Result:
    """One check of one lesson.

    `steps` is what it did, in order. `evidence` and `places` (lines of the learner's code, newest first) are there
    where it did not pass. `blocked_by` is what a blocked check needs, as text. `blocks_lesson`: the app did not start,
    so that no other check of the lesson can say anything. `seconds` is wall time, for the reader's interest only, and
    `timeline` is for the page of `workbook view` only; no file has it.
    """

    name: str
    title: str
    outcome: Outcome = Outcome.PASSED
    finding: Finding | None = None
    steps: list[str] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    blocked_by: str = ""
    blocks_lesson: bool = False
    seconds: float = 0.0
    timeline: Timeline | None = None

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Result:
        """The result of which `asdict` made this dictionary."""
        finding = raw["finding"]
        return cls(
            **raw
            | {
                "outcome": Outcome(raw["outcome"]),
                "finding": Finding(**finding) if finding else None,
                "evidence": [
                    Evidence(section["title"], [Line(**line) for line in section["lines"]])
                    for section in raw["evidence"]
                ],
                "places": [Place(**place) for place in raw["places"]],
                "timeline": Timeline.from_dict(raw["timeline"]) if raw.get("timeline") else None,
            }
        )


@dataclass(slots=True)
class Report:
    """All results of one lesson against one target, the folder whose code was graded.

    Paths are relative to the checkout; `notebook` is empty where the lesson has none. `postgres` is a sentence about
    the server. `total` is the number of the lesson's checks, 0 where only those count that ran. `changed` says that
    the code was edited while the checks ran, so that the results are about several states of it.
    """

    lesson: int
    title: str
    target: str
    notebook: str = ""
    postgres: str = ""
    results: list[Result] = field(default_factory=list)
    total: int = 0
    changed: bool = False

    def count(self, outcome: Outcome) -> int:
        """How many checks ended like this."""
        return sum(result.outcome is outcome for result in self.results)

    @property
    def passed(self) -> bool:
        """Whether all checks of the lesson ran on one state of the code and passed."""
        return self.all_green and len(self.results) >= self.total and not self.changed

    @property
    def all_green(self) -> bool:
        """Whether all checks that ran passed, and at least one did."""
        return bool(self.results) and all(result.outcome is Outcome.PASSED for result in self.results)

    def tally(self, total: int = 0) -> str:
        """`3 of 12 checks pass, 2 not run`; `total` is the number of the lesson's checks, if `self.total` is not."""
        ran = len(self.results)
        total = max(total, self.total)
        missing = self.count(Outcome.BLOCKED) + max(total - ran, 0)
        errors = self.count(Outcome.ERROR)
        return (
            f"{self.count(Outcome.PASSED)} of {max(ran, total)} checks pass"
            + (f", {missing} not run" if missing else "")
            + (f", {errors} ended with an error" if errors else "")
        )

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Report:
        """The report of which `to_dict` made this dictionary."""
        return cls(**raw | {"results": [Result.from_dict(one) for one in raw["results"]]})

    def to_dict(self) -> dict[str, Any]:
        """For `--report-json`: `{"lesson", "title", "target", "notebook", "postgres", "results": [...]}`."""
        raw = asdict(self)
        for result in raw["results"]:
            del result["timeline"]
        return raw


class CheckFailed(AssertionError):
    """What `expect` raises: an expectation of a check did not hold."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.happened)
        self.finding = finding


def expect(holds: object, happened: str, *, because: str, section: str = "") -> None:
    """Ends the check as failed unless `holds` is true.

    `happened` says what came instead, with the values of this run; `because` says why that hurts somebody, without
    the solution; `section` is the heading of the notebook's section that explains it.
    """
    if not holds:
        raise CheckFailed(Finding(happened, because, section))
