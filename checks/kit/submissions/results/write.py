"""Writes the files of `workbook grade`: the results of a class, for people and for programs.

index.html       for people
results.csv      a row per learner; lessons.csv: per lesson; checks.csv: per check
subsystems.csv   a row per learner and subsystem, where a lesson has a score for each of these
marks.csv        a row per learner with points and mark; moodle.csv or canvas.csv, if there is a roster, to import
results.json     everything, as results.schema.json describes it
junit.xml        for continuous integration
gradescope/      a results.json per learner, as Gradescope's autograders write it
feedback/        a file per learner to send to them, as .html and as .md
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checks.kit.submissions.marking.marks import Rules, make_marks
from checks.kit.submissions.model import Gradebook, LearnerGrades, timestamp
from checks.kit.submissions.results import feedback, gradescope, marks_table, platforms, tables
from checks.kit.submissions.results.junit import junit
from checks.kit.submissions.results.page import page
from checks.kit.submissions.results.text import NOT_GRADED, absence, verdict_texts

SCHEMA = 3
"""The version of results.json. It changes when programs that read the file would have to change."""

NOT_ALWAYS = ("gradescope/*/results.json", "feedback/*.html", "feedback/*.md", "moodle.csv", "canvas.csv")
"""Patterns of files that an earlier run may have written, for learners or a roster that this one has not."""

UNWRITABLE = re.compile("[\ud800-\udfff]")
"""Halves of characters: names of files and logs may contain them, a file in UTF-8 cannot."""


def write(gradebook: Gradebook, out: Path, rules: Rules | None = None) -> list[Path]:
    """Writes all files into the folder `out`, each whole or not at all, and returns their paths.

    The same gradebook gives the same bytes, in whatever order its grades were added. Raises OSError.
    """
    written = [_put(out / name, content) for name, content in files(gradebook, rules)]
    earlier = {path for pattern in NOT_ALWAYS for path in out.glob(pattern)}
    for old in earlier - set(written):
        old.unlink()
        if old.parent != out:
            with contextlib.suppress(OSError):
                old.parent.rmdir()
    return written


def files(gradebook: Gradebook, rules: Rules | None = None) -> Iterator[tuple[str, bytes]]:
    """Each file's path below the folder, with `/`, and its content. Without `rules`, marks are made as Rules() says."""
    rules = rules or Rules()
    texts = verdict_texts(gradebook)
    slugs = gradescope.slugs([learner.submission.learner for learner in gradebook.learners])
    yield "results.csv", tables.by_learner(gradebook)
    yield "lessons.csv", tables.by_lesson(gradebook)
    yield "checks.csv", tables.by_check(gradebook)
    if any(entry.subsystem for lesson in gradebook.lessons for entry in lesson.checks):
        yield "subsystems.csv", tables.by_subsystem(gradebook)
    marks = make_marks(gradebook, rules)
    yield "marks.csv", marks_table.table(gradebook, marks, rules)
    if rules.roster:
        yield from platforms.imports(rules.roster, marks)
    yield "results.json", _json(everything(gradebook, slugs))
    yield "junit.xml", junit(gradebook, texts)
    for index, slug in enumerate(slugs):
        yield f"feedback/{slug}.html", _bytes(feedback.html(gradebook, index, texts))
        yield f"feedback/{slug}.md", _bytes(feedback.markdown(gradebook, index, texts))
        if not gradebook.learners[index].open:
            yield f"gradescope/{slug}/results.json", _json(gradescope.results(gradebook, index, texts))
    yield "index.html", _bytes(page(gradebook, texts))


def everything(gradebook: Gradebook, slugs: list[str]) -> dict[str, Any]:
    """The content of results.json, as results.schema.json describes it. `slugs` name the folders for Gradescope."""
    return {
        "schema": SCHEMA,
        "made": timestamp(gradebook.made),
        "kit": gradebook.kit,
        "postgres": gradebook.postgres,
        "isolation": gradebook.isolation,
        "of": gradebook.total,
        "waiting": gradebook.waiting,
        "lessons": [
            {
                "lesson": lesson.number,
                "title": lesson.title,
                "checks": [
                    {"name": entry.name, "title": lesson.titles[entry.name]}
                    | ({"subsystem": entry.subsystem} if entry.subsystem else {})
                    for entry in lesson.checks
                ],
            }
            for lesson in gradebook.lessons
        ],
        "learners": [
            _learner(gradebook, learner, slug) for learner, slug in zip(gradebook.learners, slugs, strict=True)
        ],
    }


def _learner(gradebook: Gradebook, learner: LearnerGrades, slug: str) -> dict[str, Any]:
    submission = learner.submission
    return {
        "learner": submission.learner,
        "source": submission.source,
        "handed_in": timestamp(submission.handed_in.at if submission.handed_in else None),
        "known_by": submission.handed_in.known_by if submission.handed_in else "",
        "notes": list(submission.notes),
        "for_instructor": list(submission.for_instructor),
        "feedback": f"feedback/{slug}.html",
        "gradescope": "" if learner.open else f"gradescope/{slug}/results.json",
        "passed": learner.passed,
        "seconds": round(learner.seconds, 3),
        "lessons": [
            {
                "lesson": number,
                "passed": grade.passed,
                "of": grade.total,
                "final": not grade.has_error,
                "stopped": grade.stopped,
                "seconds": round(grade.seconds, 3),
                "graded": timestamp(grade.at),
                "report": grade.report.to_dict(),
            }
            for number in (lesson.number for lesson in gradebook.lessons)
            if (grade := learner.grades.get(number))
        ],
        "ungraded": [
            lesson.number
            for lesson in gradebook.lessons
            if lesson.number not in learner.grades and absence(learner, lesson) == NOT_GRADED
        ],
        "waiting": sorted(learner.waiting),
    }


def _json(content: dict[str, Any]) -> bytes:
    return _bytes(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _bytes(text: str) -> bytes:
    return UNWRITABLE.sub("\ufffd", text).encode()


def _put(path: Path, content: bytes) -> Path:
    """Writes another file first and renames it: at every moment there is the old file or the new one, as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_bytes(content)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return path
