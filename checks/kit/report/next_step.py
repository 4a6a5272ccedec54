"""Which file to open after a report."""

from __future__ import annotations

from checks.kit import catalogue
from checks.kit.report.model import Outcome, Report


def next_step(report: Report) -> str:
    """The file to open: the learner's own line if the first verdict names one, else the files to edit."""
    lesson = catalogue.lesson(report.lesson)
    if report.passed:
        following = [known for known in catalogue.lessons() if known.number > lesson.number]
        ticket = following[0].folder / "README.md" if following else catalogue.ROOT / "README.md"
        return str(ticket.relative_to(catalogue.ROOT))
    first = next((result for result in report.results if result.outcome is Outcome.FAILED), None)
    for place in first.places if first else []:
        file = place.path.removeprefix(f"{report.target}/")
        if file in lesson.edit or not (lesson.solution / file).exists():  # not in what stays as it was handed out
            return f"{place.path}:{place.line}"
    first_file, *others = (f"{report.target}/{file}" for file in lesson.edit)
    return f"{first_file}, or one of {len(others)} others that the ticket names" if others else first_file
