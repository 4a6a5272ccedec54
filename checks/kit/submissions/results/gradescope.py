"""The results as Gradescope's autograder reports them: gradescope/<learner>/results.json.

https://gradescope-autograders.readthedocs.io/en/latest/specs/. Each check is worth one point. The checks of a lesson
that was not submitted are in the file, too, without points, so that the maximum is the same for everybody. A learner
with a lesson that was submitted and has no final grade gets no file: Gradescope then says that the autograder failed,
which is true, and gives no points that could be taken for final.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from checks.kit.lessons.lesson import Lesson
from checks.kit.report.model import Outcome, Result
from checks.kit.report.safe_text import display_text
from checks.kit.submissions.model import Gradebook, LearnerGrades
from checks.kit.submissions.results.text import VerdictText, VerdictTexts, absence

RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)")
"""Names that are devices on Windows, whatever follows their first dot."""

HASHED = re.compile(r"-[0-9a-f]{12}$")
"""The end of a slug to which a hash was added."""

MAX_SLUG_CHARACTERS = 64
"""Characters of a folder's name, without the hash that may follow."""


def results(gradebook: Gradebook, index: int, texts: VerdictTexts) -> dict[str, Any]:
    """One learner's results.json: in `output` a line for each lesson, in `tests` one for each check of the run."""
    learner = gradebook.learners[index]
    return {
        "score": learner.passed,
        "execution_time": round(learner.seconds, 3),
        "visibility": "visible",
        "output": "\n".join(_summary(gradebook, learner)),
        "output_format": "text",
        "tests": [
            test for lesson in gradebook.lessons for test in _tests(learner, lesson, texts.get((index, lesson.number)))
        ],
        "extra_data": {"learner": display_text(learner.submission.learner), "kit": gradebook.kit},
    }


def _summary(gradebook: Gradebook, learner: LearnerGrades) -> Iterator[str]:
    yield f"{learner.passed} of {gradebook.total} checks pass."
    for lesson in gradebook.lessons:
        grade = learner.grades.get(lesson.number)
        result = f"{grade.passed} of {grade.total}" if grade else absence(learner, lesson)
        yield f"Lesson {lesson.number:02}, {lesson.title}: {result}"
        if grade and grade.stopped:
            yield f"  Grading was stopped: {display_text(grade.stopped)}"
    yield from (display_text(note) for note in learner.submission.notes)


def _tests(learner: LearnerGrades, lesson: Lesson, text: VerdictText | None) -> Iterator[dict[str, Any]]:
    grade = learner.grades.get(lesson.number)
    results = {result.name: result for result in grade.report.results} if grade else {}
    for number, entry in enumerate(lesson.checks, 1):
        result = results.get(entry.name)
        passed = result is not None and result.outcome is Outcome.PASSED
        yield {
            "name": f"Lesson {lesson.number:02}: {lesson.titles[entry.name]}",
            "name_format": "text",
            "number": f"{lesson.number}.{number}",
            "score": int(passed),
            "max_score": 1,
            "status": "passed" if passed else "failed",
            "output": _output(result, text) if result else absence(learner, lesson),
            "output_format": "text",
        }


def _output(result: Result, text: VerdictText | None) -> str:
    if result.outcome is Outcome.BLOCKED:
        return f"Not run; it needs: {display_text(result.blocked_by)}"
    return text.for_display(result.name) if text and result.name in text.stories else ""


def slugs(learners: Sequence[str]) -> list[str]:
    """A folder's name for each learner: at most 80 of `a-z0-9._-`, all different, safe on every file system.

    A hash is added to a name that is not unique, or that looks like one with a hash.
    """
    plain = [_plain(learner) for learner in learners]
    times, seen = Counter(plain), Counter[str]()
    unique = []
    for learner, slug in zip(learners, plain, strict=True):
        seen[learner] += 1
        if times[slug] > 1 or HASHED.search(slug) or RESERVED.match(slug):
            full = f"{learner}\0{seen[learner]}".encode("utf-8", "surrogatepass")
            slug = f"{slug.replace('.', '-')}-{hashlib.sha256(full).hexdigest()[:12]}"
        unique.append(slug)
    return unique


def _plain(learner: str) -> str:
    letters = unicodedata.normalize("NFKD", learner).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._]+", "-", letters)[:MAX_SLUG_CHARACTERS].strip("._-") or "learner"
