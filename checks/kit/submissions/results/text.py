"""A lesson's verdicts as text: what the learner sees in their own terminal with -v, safe to show to others."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console

from checks.kit.lessons.lesson import Lesson
from checks.kit.report import terminal
from checks.kit.report.model import Finding, Place, Report, Result
from checks.kit.report.safe_text import display_text
from checks.kit.submissions.model import Gradebook, LearnerGrades
from checks.kit.testbed.evidence import Evidence, Line

NOT_SUBMITTED = "This lesson was not submitted."
NOT_GRADED = "This lesson was submitted but could not be graded: the grader failed, not the submission."
NOT_FINAL = "This grade is not final: a check ended with an error of its own, perhaps a fault of this machine."
WAITING = "This lesson was submitted and is not graded yet: the run was interrupted."

NEXT_STEP = re.compile(r"^(?:Next|Open): ", re.MULTILINE)
"""Begins what to open next, which is about the reader's own checkout and left out here."""


@dataclass(frozen=True, slots=True)
class VerdictText:
    """The verdicts of a lesson in parts: `head` lists all checks, `foot` counts them.

    `stories` has the whole verdict of each failed check, by the check's name; each ends with a newline.
    """

    head: str
    stories: Mapping[str, str]
    foot: str

    @property
    def whole(self) -> str:
        """All parts as one text."""
        return "".join([self.head, *self.stories.values(), self.foot])

    def for_display(self, name: str) -> str:
        """The verdict of one failed check alone, without the rule above it."""
        return self.stories[name].lstrip("\n─").rstrip("\n")


VerdictTexts = Mapping[tuple[int, int], VerdictText]
"""The verdicts of a whole gradebook, by the learner's index and the lesson's number."""


def verdict_texts(gradebook: Gradebook) -> VerdictTexts:
    """The verdicts of all grades. Rendering them is most of the work of writing results: do it once and share them."""
    wanted = {lesson.number for lesson in gradebook.lessons}
    rendered: dict[int, VerdictText] = {}  # learners who submitted the same files share a Grade
    texts = {}
    for index, learner in enumerate(gradebook.learners):
        for number, grade in learner.grades.items():
            if number in wanted:
                if id(grade) not in rendered:
                    rendered[id(grade)] = verdict_text(grade.report)
                texts[index, number] = rendered[id(grade)]
    return texts


def absence(learner: LearnerGrades, lesson: Lesson) -> str:
    """Why a lesson has no grade: NOT_GRADED, NOT_SUBMITTED or WAITING."""
    if lesson.number in learner.waiting:
        return WAITING
    return NOT_GRADED if lesson.number in learner.submission.lessons else NOT_SUBMITTED


def verdict_text(report: Report, width: int = 80) -> VerdictText:
    """Renders a header, a line for each check, every verdict in full, and how many checks pass; `width` in columns.

    There are symbols and rules, whatever WORKBOOK_PLAIN and TERM say about the instructor's own terminal.
    """
    report = _safe_report(report)
    out = _Sheet(width)
    terminal.header(out, report)
    for result in report.results:
        terminal.line(out, result, words=False)
    head = out.take()
    stories = {}
    for result in report.results:
        if result.outcome.is_red:
            terminal.verdict(out, report, result, words=False)
            stories[result.name] = out.take()
    terminal.summary(out, report, "")
    return VerdictText(head, stories, NEXT_STEP.split(out.take())[0])


class _Sheet(Console):
    """A terminal without colors. Text that rich would print unchanged is written directly, in a third of the time."""

    def __init__(self, width: int) -> None:
        super().__init__(
            file=io.StringIO(), width=width, height=25, force_terminal=False, highlight=False, markup=False, emoji=False
        )

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        text = objects[0] if objects else ""
        if isinstance(text, str) and "\t" not in text and (soft_wrap or self._fits(text)):
            self.file.write(f"{text}\n")
        else:
            super().print(*objects, soft_wrap=soft_wrap, **options)

    def _fits(self, text: str) -> bool:
        return all(cell_len(row) <= self.width for row in text.split("\n"))

    def take(self) -> str:
        """What was printed since the last call."""
        text = self.file.getvalue()  # type: ignore[attr-defined]
        self.file = io.StringIO()
        return str(text)


def _safe_report(report: Report) -> Report:
    """A copy in which no text commands a terminal or is longer than can be read."""
    return replace(
        report,
        title=display_text(report.title),
        target=display_text(report.target),
        notebook=display_text(report.notebook),
        postgres=display_text(report.postgres),
        results=[_safe_result(result) for result in report.results],
    )


def _safe_result(result: Result) -> Result:
    finding = result.finding
    return replace(
        result,
        title=display_text(result.title),
        finding=finding
        and Finding(display_text(finding.happened), display_text(finding.because), display_text(finding.section)),
        steps=[display_text(step) for step in result.steps],
        evidence=[_safe_evidence(section) for section in result.evidence],
        places=[
            Place(display_text(place.path), place.line, display_text(place.function), display_text(place.error))
            for place in result.places
        ],
        blocked_by=display_text(result.blocked_by),
    )


def _safe_evidence(section: Evidence) -> Evidence:
    # the lines before the last ones are counted, but not shown
    hidden, shown = section.lines[: -terminal.MAX_SHOWN_LINES], section.lines[-terminal.MAX_SHOWN_LINES :]
    safe = [Line(display_text(line.text), display_text(line.label), display_text(line.result)) for line in shown]
    return Evidence(display_text(section.title), hidden + safe)
