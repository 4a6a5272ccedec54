"""The results as JUnit XML, as Jenkins and GitLab read it: a suite per learner and lesson, a case per check.

A check that did not run is skipped, and so are those of a lesson that was not handed in; those of a lesson that could
not be graded are errors.
"""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as ET

from checks.kit.catalogue import Lesson
from checks.kit.report.model import Outcome, Result
from checks.kit.submissions.insight import shortened
from checks.kit.submissions.model import Gradebook, Graded
from checks.kit.submissions.text import NOT_GRADED, Tellings, Told, absence, visible


def junit(book: Gradebook, told: Tellings) -> bytes:
    """The whole file."""
    root = ET.Element("testsuites", name="Bookshop workbook")
    count: Counter[str] = Counter()
    for index, graded in enumerate(book.graded):
        for lesson in book.lessons:
            mark = graded.marks.get(lesson.number)
            suite = _suite(graded, lesson, told.get((index, lesson.number)))
            count.update(_count(suite))
            _note(suite, _count(suite), mark.seconds if mark else 0)
            root.append(suite)
    _note(root, count, sum(graded.seconds for graded in book.graded))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _suite(graded: Graded, lesson: Lesson, told: Told | None) -> ET.Element:
    learner, mark = visible(graded.submission.learner), graded.marks.get(lesson.number)
    suite = ET.Element("testsuite", name=f"{learner}: lesson {lesson.number:02}, {lesson.title}")
    results = {result.name: result for result in mark.report.results} if mark else {}
    absent = absence(graded, lesson)
    for entry in lesson.checks:
        result = results.get(entry.name)
        # Jenkins takes what stands before the last dot for a package: the learner; GitLab shows all of it
        about = {"classname": f"{learner}.{lesson.name}", "name": lesson.titles[entry.name]}
        case = ET.SubElement(suite, "testcase", about, time=f"{result.seconds if result else 0:.3f}")
        if result is None:
            ET.SubElement(case, "error" if absent == NOT_GRADED else "skipped", message=absent)
        elif result.outcome is Outcome.BLOCKED:
            ET.SubElement(case, "skipped", message=f"Not run; it needs: {visible(result.blocked_by)}")
        elif result.outcome is Outcome.FAILED:
            _failure(case, result, told)
    if mark and mark.stopped:
        ET.SubElement(suite, "system-err").text = f"Grading was stopped: {visible(mark.stopped)}"
    return suite


def _failure(case: ET.Element, result: Result, told: Told | None) -> None:
    happened = result.finding.happened if result.finding else "It failed without a finding."
    failure = ET.SubElement(case, "failure", message=shortened(happened, 300), type="Finding")
    failure.text = told.story(result.name) if told else visible(happened)


def _count(suite: ET.Element) -> Counter[str]:
    """How many cases there are, and how many with each kind of trouble."""
    return Counter({"testcase": len(suite.findall("testcase"))}) + Counter(
        one.tag for one in suite.findall("testcase/*")
    )


def _note(element: ET.Element, count: Counter[str], seconds: float) -> None:
    names = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
    element.attrib |= {name: str(count[tag]) for name, tag in names.items()} | {"time": f"{seconds:.3f}"}
