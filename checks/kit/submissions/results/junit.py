"""The results as JUnit XML, as Jenkins and GitLab read it: a suite per learner and lesson, a case per check.

A check that did not run is skipped, and so are the checks of a lesson that was not submitted. A check that ended with
an error of its own is an error, and so are the checks of a lesson that was submitted and has no grade.
"""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as ET

from checks.kit.lessons.lesson import Lesson
from checks.kit.report.model import Outcome, Result
from checks.kit.report.safe_text import display_line, display_text
from checks.kit.submissions.model import Gradebook, LearnerGrades
from checks.kit.submissions.results.text import NOT_SUBMITTED, VerdictText, VerdictTexts, absence

MAX_MESSAGE_CHARACTERS = 300
"""Characters of a failure's message; its text has the whole verdict."""


def junit(gradebook: Gradebook, texts: VerdictTexts) -> bytes:
    """The whole file."""
    root = ET.Element("testsuites", name="Bookshop workbook")
    total: Counter[str] = Counter()
    for index, learner in enumerate(gradebook.learners):
        for lesson in gradebook.lessons:
            grade = learner.grades.get(lesson.number)
            suite = _suite(learner, lesson, texts.get((index, lesson.number)))
            count = _count(suite)
            total.update(count)
            _set_totals(suite, count, grade.seconds if grade else 0)
            root.append(suite)
    _set_totals(root, total, sum(learner.seconds for learner in gradebook.learners))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _suite(learner: LearnerGrades, lesson: Lesson, text: VerdictText | None) -> ET.Element:
    name, grade = display_text(learner.submission.learner), learner.grades.get(lesson.number)
    suite = ET.Element("testsuite", name=f"{name}: lesson {lesson.number:02}, {lesson.title}")
    results = {result.name: result for result in grade.report.results} if grade else {}
    reason = absence(learner, lesson)
    for entry in lesson.checks:
        result = results.get(entry.name)
        # Jenkins groups by what is in front of the last dot, as by a package: the learner; GitLab shows all of it
        attributes = {"classname": f"{name}.{lesson.name}", "name": lesson.titles[entry.name]}
        case = ET.SubElement(suite, "testcase", attributes, time=f"{result.seconds if result else 0:.3f}")
        if result is None:
            ET.SubElement(case, "skipped" if reason == NOT_SUBMITTED else "error", message=reason)
        elif result.outcome is Outcome.BLOCKED:
            ET.SubElement(case, "skipped", message=f"Not run; it needs: {display_text(result.blocked_by)}")
        elif result.outcome.is_red:
            _add_failure(case, result, text)
    if grade and grade.stopped:
        ET.SubElement(suite, "system-err").text = f"Grading was stopped: {display_text(grade.stopped)}"
    return suite


def _add_failure(case: ET.Element, result: Result, text: VerdictText | None) -> None:
    happened = result.finding.happened if result.finding else "It failed without a finding."
    tag = "error" if result.outcome is Outcome.ERROR else "failure"
    failure = ET.SubElement(case, tag, message=display_line(happened, MAX_MESSAGE_CHARACTERS), type="Finding")
    failure.text = text.for_display(result.name) if text else display_text(happened)


def _count(suite: ET.Element) -> Counter[str]:
    """How many cases a suite has, and how many failures, errors and skipped ones, by the element's tag."""
    problems = Counter(element.tag for element in suite.findall("testcase/*"))
    return Counter({"testcase": len(suite.findall("testcase"))}) + problems


def _set_totals(element: ET.Element, count: Counter[str], seconds: float) -> None:
    tags = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
    element.attrib |= {name: str(count[tag]) for name, tag in tags.items()} | {"time": f"{seconds:.3f}"}
