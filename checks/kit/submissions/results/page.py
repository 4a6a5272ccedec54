"""A class's results as one HTML file that needs nothing else: no script, no network, works from a disk."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from checks.kit.lessons.lesson import Lesson
from checks.kit.report.model import Outcome
from checks.kit.report.safe_text import display_line
from checks.kit.submissions.model import Gradebook
from checks.kit.submissions.results import statistics
from checks.kit.submissions.results.html import render
from checks.kit.submissions.results.sections import MAX_TIP_CHARACTERS, LearnerSection, learner_section
from checks.kit.submissions.results.text import VerdictTexts, verdict_texts

HARDEST_AT_FIRST = 10
NAMES_AT_FIRST = 8
"""Entries of a list that are visible before a click."""


def page(gradebook: Gradebook, texts: VerdictTexts | None = None) -> str:
    """The whole page. `texts` are the `verdict_texts` of the gradebook, if the caller has them."""
    texts = verdict_texts(gradebook) if texts is None else texts
    learners = [learner_section(gradebook, index, texts) for index in range(len(gradebook.learners))]
    hardest = statistics.hardest_checks(gradebook)
    # learners who submitted the same files share a Grade, which took its time once
    seconds = {id(grade): grade.seconds for learner in gradebook.learners for grade in learner.grades.values()}
    return render(
        "page.html",
        gradebook=gradebook,
        learners=learners,
        rates=[_rates(gradebook, lesson) for lesson in gradebook.lessons],
        hardest=hardest[:HARDEST_AT_FIRST],
        less_hard=hardest[HARDEST_AT_FIRST:],
        statistics=statistics.lesson_statistics(gradebook),
        attention=_attention(gradebook, learners),
        complete=sum(learner.passed == gradebook.total for learner in gradebook.learners) if gradebook.total else 0,
        median=median(learner.passed for learner in gradebook.learners) if gradebook.learners else 0,
        seconds=sum(seconds.values()),
        not_isolated="limits only" in gradebook.isolation.casefold(),
        names_at_first=NAMES_AT_FIRST,
    )


def _rates(gradebook: Gradebook, lesson: Lesson) -> list[int]:
    """Percent of the submissions of a lesson that pass each of its checks; -1 if there are none."""
    reports = [
        learner.grades[lesson.number].report for learner in gradebook.learners if lesson.number in learner.grades
    ]
    passed = {entry.name: 0 for entry in lesson.checks}
    for report in reports:
        for result in report.results:
            passed[result.name] += result.outcome is Outcome.PASSED
    return [100 * passed[entry.name] // len(reports) if reports else -1 for entry in lesson.checks]


def _attention(gradebook: Gradebook, learners: Sequence[LearnerSection]) -> dict[str, list[tuple[LearnerSection, str]]]:
    """The learners who need attention, by the reason, each with a detail ("" if there is none)."""
    groups = {
        "Not graded, because the grader failed": [
            (learner, f"lesson {section.lesson.number:02}: run the same command again")
            for learner in learners
            for section in learner.ungraded
        ],
        "Not final, because a check ended with an error of its own": [
            (learner, f"lesson {section.lesson.number:02}: run the same command again")
            for learner in learners
            for section in learner.errors
        ],
        "Stopped by a limit": [
            (learner, f"lesson {section.lesson.number:02}: {display_line(section.grade.stopped, MAX_TIP_CHARACTERS)}")
            for learner in learners
            for section in learner.stopped
            if section.grade
        ],
        "No lesson that could be graded": [(learner, "") for learner in learners if not learner.submitted],
        "Fewer than half of the median": [
            (learners[index], f"{learners[index].passed} of {gradebook.total}")
            for index in statistics.far_below_median(gradebook)
        ],
        "Same files as another submission, or nearly": [
            (learner, display_line(" ".join(learner.for_instructor), MAX_TIP_CHARACTERS))
            for learner in learners
            if learner.for_instructor
        ],
        "Notes on the submission": [
            (learner, display_line(" ".join(learner.notes), MAX_TIP_CHARACTERS))
            for learner in learners
            if learner.notes
        ],
    }
    return {reason: members for reason, members in groups.items() if members}
