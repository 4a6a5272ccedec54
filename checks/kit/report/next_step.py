"""Which file to open after a report."""

from __future__ import annotations

import shlex

from checks.kit.lessons.lesson import all_lessons, find_lesson
from checks.kit.lessons.paths import ROOT
from checks.kit.lessons.unfinished import missing
from checks.kit.report.model import Outcome, Report


def next_step(report: Report) -> str:
    """The file to open, relative to the checkout: `path:line` of the first failed check, else the ticket.

    After a lesson that passes: the next lesson's ticket, or how to see what is left after the last one. After a part
    of a lesson that passes: the command that runs all of it. After nothing but errors, which say nothing about the
    learner's code: the checks.
    """
    lesson = find_lesson(report.lesson)
    if report.passed:
        following = [known for known in all_lessons() if known.number > lesson.number and not missing(known)]
        if not following:
            return "`workbook` shows which lessons are left"
        return str((following[0].folder / "README.md").relative_to(ROOT))
    if report.all_green:
        target = "" if report.target == f"lessons/{lesson.name}" else f" --target {shlex.quote(report.target)}"
        return f"pytest checks/{lesson.name}{target}"
    first = next((result for result in report.results if result.outcome is Outcome.FAILED), None)
    if first is None and report.count(Outcome.ERROR):
        checks = min(lesson.checks_folder.glob("test_*.py"), default=lesson.checks_folder)
        return f"{checks.relative_to(ROOT)}: the check failed, not your code; run the same command again"
    places = first.places if first else []
    to_edit = [place for place in places if place.path.removeprefix(f"{report.target}/") in lesson.edit]
    for place in to_edit or places:
        return f"{place.path}:{place.line}"
    return f"{(lesson.folder / 'README.md').relative_to(ROOT)}, section “Where”"
