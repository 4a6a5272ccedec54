"""What `workbook grade` leaves behind: the class's results, in every form that somebody may want them in.

index.html       for people
results.csv      a line per learner, lessons.csv per lesson, checks.csv per check
results.json     everything, as results.schema.json describes it
junit.xml        for continuous integration
gradescope/      results.json per learner, as Gradescope's autograders write it
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checks.kit.submissions import gradescope, tables
from checks.kit.submissions.junit import junit
from checks.kit.submissions.model import Gradebook, Graded
from checks.kit.submissions.page import page
from checks.kit.submissions.text import NOT_GRADED, absence, tellings

SCHEMA = 1
"""The version of results.json; another number where what is there is read in another way than before."""

UNWRITABLE = re.compile("[\ud800-\udfff]")
"""Halves of characters, which names of files and logs may hold and no file in UTF-8 can."""


def write(book: Gradebook, out: Path) -> list[Path]:
    """Writes all files into the folder `out`, each whole or not at all, and returns their paths.

    The same book makes the same bytes but for times, in whatever order its marks came in.
    """
    there = [_put(out / name, content) for name, content in files(book)]
    for old in set(out.glob("gradescope/*/results.json")) - set(there):  # of learners who are gone
        old.unlink()
        with contextlib.suppress(OSError):
            old.parent.rmdir()
    return there


def files(book: Gradebook) -> Iterator[tuple[str, bytes]]:
    """Each file's path below the folder, with `/`, and its content."""
    told = tellings(book)
    slugs = gradescope.slugs([graded.submission.learner for graded in book.graded])
    yield "results.csv", tables.by_learner(book)
    yield "lessons.csv", tables.by_lesson(book)
    yield "checks.csv", tables.by_check(book)
    yield "results.json", _json(everything(book, slugs))
    yield "junit.xml", junit(book, told)
    for index, slug in enumerate(slugs):
        yield f"gradescope/{slug}/results.json", _json(gradescope.results(book, index, told))
    yield "index.html", _bytes(page(book, told))


def everything(book: Gradebook, slugs: list[str]) -> dict[str, Any]:
    """results.json, as results.schema.json describes it."""
    return {
        "schema": SCHEMA,
        "kit": book.kit,
        "postgres": book.postgres,
        "isolation": book.isolation,
        "of": book.total,
        "lessons": [
            {
                "lesson": lesson.number,
                "title": lesson.title,
                "checks": [{"name": entry.name, "title": lesson.titles[entry.name]} for entry in lesson.checks],
            }
            for lesson in book.lessons
        ],
        "learners": [_learner(book, graded, slug) for graded, slug in zip(book.graded, slugs, strict=True)],
    }


def _learner(book: Gradebook, graded: Graded, slug: str) -> dict[str, Any]:
    its = graded.submission
    return {
        "learner": its.learner,
        "source": its.source,
        "notes": list(its.notes),
        "gradescope": f"gradescope/{slug}/results.json",
        "passed": graded.passed,
        "seconds": round(graded.seconds, 3),
        "lessons": [
            {
                "lesson": number,
                "passed": mark.passed,
                "of": mark.total,
                "stopped": mark.stopped,
                "seconds": round(mark.seconds, 3),
                "report": mark.report.to_dict(),
            }
            for number in (lesson.number for lesson in book.lessons)
            if (mark := graded.marks.get(number))
        ],
        "ungraded": [
            lesson.number
            for lesson in book.lessons
            if lesson.number not in graded.marks and absence(graded, lesson) == NOT_GRADED
        ],
    }


def _json(content: dict[str, Any]) -> bytes:
    return _bytes(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _bytes(text: str) -> bytes:
    return UNWRITABLE.sub("\ufffd", text).encode()


def _put(path: Path, content: bytes) -> Path:
    """Writes beside the file first: whoever reads it, or pulls the plug, finds the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    try:
        new.write_bytes(content)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return path
