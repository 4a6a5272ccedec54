"""Which file to open after a report."""

from __future__ import annotations

from checks.kit import catalogue
from checks.kit.report.model import Outcome, Report


def next_step(report: Report) -> str:
    """The file to open: the learner's own line if a verdict names one, else the lesson's first file to edit."""
    lesson = catalogue.lesson(report.lesson)
    if report.passed:
        following = [known for known in catalogue.lessons() if known.number > lesson.number]
        ticket = following[0].folder / "README.md" if following else catalogue.ROOT / "README.md"
        return str(ticket.relative_to(catalogue.ROOT))
    for place in (place for result in report.results if result.outcome is Outcome.FAILED for place in result.places):
        file = place.path.removeprefix(f"{report.target}/")
        if file in lesson.edit or not (lesson.solution / file).exists():  # not in what stays as it was handed out
            return f"{place.path}:{place.line}"
    return f"{report.target}/{lesson.edit[0]}"
