"""Feedback for one learner, to be sent to them: their own verdicts and notes, and nothing about anybody else."""

from __future__ import annotations

import re
from collections.abc import Iterator

from checks.kit.submissions.model import Gradebook
from checks.kit.submissions.results.html import moment, render
from checks.kit.submissions.results.sections import LearnerSection, LessonSection, learner_section
from checks.kit.submissions.results.text import VerdictTexts

MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|~&])")
"""What Markdown may take for more than text."""

BACKTICKS = re.compile("`+")


def html(gradebook: Gradebook, index: int, texts: VerdictTexts) -> str:
    """The feedback as a file for a browser, without scripts."""
    return render(
        "feedback.html",
        gradebook=gradebook,
        learner=learner_section(gradebook, index, texts),
        made=gradebook.learners[index].made,
        not_final=_not_final(gradebook, index),
    )


def markdown(gradebook: Gradebook, index: int, texts: VerdictTexts) -> str:
    """The feedback as Markdown: for an issue, or for a text field of a learning platform."""
    learner = learner_section(gradebook, index, texts)
    return "\n\n".join(_blocks(gradebook, index, learner)) + "\n"


def _blocks(gradebook: Gradebook, index: int, learner: LearnerSection) -> Iterator[str]:
    yield f"# {_plain(learner.name)}"
    yield f"**{learner.passed} of {gradebook.total}** checks pass."
    if learner.handed_in:
        yield f"Handed in: {_plain(learner.handed_in)}"
    if made := gradebook.learners[index].made:
        yield f"Graded: {moment(made)}"
    if sentence := _not_final(gradebook, index):
        yield f"**This is not final.** {_plain(sentence)}"
    if learner.notes:
        yield "\n".join(f"- {_plain(note)}" for note in learner.notes)
    for section in learner.lessons:
        yield from _lesson(section)


def _lesson(section: LessonSection) -> Iterator[str]:
    grade = section.grade
    result = f"{grade.passed} of {grade.total}" if grade else section.absence
    yield f"## Lesson {section.lesson.number:02}, {_plain(section.lesson.title)}: {result}"
    if grade and grade.stopped:
        yield f"Grading was stopped: {_plain(grade.stopped)}"
    if section.text:
        text = section.text.whole.strip("\n")
        fence = "`" * max(3, 1 + max((len(run) for run in BACKTICKS.findall(text)), default=0))
        yield f"{fence}text\n{text}\n{fence}"


def _not_final(gradebook: Gradebook, index: int) -> str:
    """A sentence on the lessons without a final grade; "" if there are none."""
    numbers = ", ".join(f"{number:02}" for number in gradebook.learners[index].open)
    return f"Not graded yet, or to be graded again, through no fault of yours: lesson {numbers}." if numbers else ""


def _plain(text: str) -> str:
    """A text on one line, without markup."""
    return MARKUP.sub(r"\\\1", " ".join(text.split()))
