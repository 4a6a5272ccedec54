"""One check as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass

from checks.kit.lessons.lesson import Lesson
from checks.kit.report.model import Outcome, Result
from checks.kit.report.terminal import SYMBOL
from checks.kit.testbed.evidence import ON_THE_WIRE, Evidence, Line
from checks.kit.view.timeline import Drawing, drawing

MAX_LINES = 100
"""Lines of one section of evidence that are shown; the last ones."""

WORD = {Outcome.PASSED: "Passed", Outcome.FAILED: "Failed", Outcome.BLOCKED: "Not run", Outcome.ERROR: "Error"}


@dataclass(frozen=True, slots=True)
class Section:
    """A section of evidence: the lines that are shown, and how many come before them."""

    title: str
    lines: list[Line]
    hidden: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A check of the page's list; `result` is None before it ran.

    `old`: the result is from the run before. `first`: it is the first one that failed, so it is unfolded.
    """

    lesson: Lesson
    name: str
    title: str
    result: Result | None
    old: bool
    running: bool
    was_green: bool
    first: bool
    notebook: str
    hints_had: int

    @property
    def state(self) -> str:
        """How it ended, as a class of the style sheet."""
        return str(self.result.outcome) if self.result else "open"

    @property
    def symbol(self) -> str:
        return SYMBOL[self.result.outcome] if self.result else "·"

    @property
    def word(self) -> str:
        """The symbol for a screen reader."""
        return WORD[self.result.outcome] if self.result else "Not yet"

    @property
    def is_red(self) -> bool:
        return self.result is not None and self.result.outcome.is_red

    @property
    def steps(self) -> list[tuple[str, str]]:
        """What the check did; of a step with details, these too."""
        return [
            (step.partition("\n")[0], step.partition("\n")[2]) for step in (self.result.steps if self.result else [])
        ]

    @property
    def drawing(self) -> Drawing | None:
        """Requests and statements over time."""
        return drawing(self.result.timeline) if self.result and self.result.timeline else None

    @property
    def sections(self) -> list[Section]:
        """Evidence, without the statements if they are drawn."""
        evidence = self.result.evidence if self.result else []
        drawn = self.result is not None and self.result.timeline is not None
        return [self._section(each) for each in evidence if not drawn or each.title != ON_THE_WIRE]

    @staticmethod
    def _section(evidence: Evidence) -> Section:
        return Section(evidence.title, evidence.lines[-MAX_LINES:], max(len(evidence.lines) - MAX_LINES, 0))

    @property
    def hints(self) -> tuple[str, ...]:
        """Those that the learner had."""
        return self.lesson.hints.get(self.name, ())[: self.hints_had]

    @property
    def more_hints(self) -> int:
        return len(self.lesson.hints.get(self.name, ())) - len(self.hints)
