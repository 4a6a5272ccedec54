"""The results as Gradescope's autograder hands them in: gradescope/<learner>/results.json.

https://gradescope-autograders.readthedocs.io/en/latest/specs/. A check is worth one point. The checks of
a lesson without a mark are there too, with none, so that everybody's points are out of the same sum.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from checks.kit.catalogue import Lesson
from checks.kit.report.model import Outcome, Result
from checks.kit.submissions.model import Gradebook, Graded
from checks.kit.submissions.text import Tellings, Told, absence, visible

RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)")
"""Names that are devices on Windows, whatever follows their first dot."""

HASHED = re.compile(r"-[0-9a-f]{12}$")
SHORT = 64
"""Characters of a folder's name, the hash aside that may follow."""


def results(book: Gradebook, index: int, told: Tellings) -> dict[str, Any]:
    """One learner's results.json; a line of `output` for each lesson, and one test for each check of the run."""
    graded = book.graded[index]
    return {
        "score": graded.passed,
        "execution_time": round(graded.seconds, 3),
        "visibility": "visible",
        "output": "\n".join(_summary(book, graded)),
        "output_format": "text",
        "tests": [test for lesson in book.lessons for test in _tests(graded, lesson, told.get((index, lesson.number)))],
        "extra_data": {"learner": visible(graded.submission.learner), "kit": book.kit},
    }


def _summary(book: Gradebook, graded: Graded) -> Iterator[str]:
    yield f"{graded.passed} of {book.total} checks pass."
    for lesson in book.lessons:
        mark = graded.marks.get(lesson.number)
        said = f"{mark.passed} of {mark.total}" if mark else absence(graded, lesson)
        yield f"Lesson {lesson.number:02}, {lesson.title}: {said}"
        if mark and mark.stopped:
            yield f"  Grading was stopped: {visible(mark.stopped)}"
    yield from (visible(note) for note in graded.submission.notes)


def _tests(graded: Graded, lesson: Lesson, told: Told | None) -> Iterator[dict[str, Any]]:
    mark = graded.marks.get(lesson.number)
    there = {result.name: result for result in mark.report.results} if mark else {}
    for number, entry in enumerate(lesson.checks, 1):
        result = there.get(entry.name)
        passed = result is not None and result.outcome is Outcome.PASSED
        yield {
            "name": f"Lesson {lesson.number:02}: {lesson.titles[entry.name]}",
            "name_format": "text",
            "number": f"{lesson.number}.{number}",
            "score": int(passed),
            "max_score": 1,
            "status": "passed" if passed else "failed",
            "output": _output(result, told) if result else absence(graded, lesson),
            "output_format": "text",
        }


def _output(result: Result, told: Told | None) -> str:
    if result.outcome is Outcome.BLOCKED:
        return f"Not run; it needs: {visible(result.blocked_by)}"
    return told.story(result.name) if told and result.name in told.stories else ""


def slugs(learners: Sequence[str]) -> list[str]:
    """A folder's name for each learner: at most 80 of `a-z0-9._-`, all different, safe on every file system.

    Where a name cannot be told from another's, or from one made here, a hash of it follows.
    """
    plain = [_plain(learner) for learner in learners]
    times, seen = Counter(plain), Counter[str]()
    made = []
    for learner, slug in zip(learners, plain, strict=True):
        seen[learner] += 1
        if times[slug] > 1 or HASHED.search(slug) or RESERVED.match(slug):
            full = f"{learner}\0{seen[learner]}".encode("utf-8", "surrogatepass")
            slug = f"{slug.replace('.', '-')}-{hashlib.sha256(full).hexdigest()[:12]}"
        made.append(slug)
    return made


def _plain(learner: str) -> str:
    letters = unicodedata.normalize("NFKD", learner).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._]+", "-", letters)[:SHORT].strip("._-") or "learner"
