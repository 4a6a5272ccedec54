"""The pieces of work that a run consists of: one lesson's files each, whoever handed them in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from checks.kit import catalogue
from checks.kit.catalogue import ROOT, Lesson
from checks.kit.report.model import Report
from checks.kit.submissions.folders import Folder
from checks.kit.submissions.model import Files, Mark, Submission
from checks.kit.submissions.sifting import sift

GRADER = ("checks/kit", "checks/lesson_*", "lessons", "pyproject.toml")
"""Whatever of ours a verdict may depend on."""

ASIDE = {"__pycache__", "variants", "submissions", "cli"}


@dataclass(frozen=True, slots=True)
class Unit:
    """A lesson as it was handed in. The same files give the same `key`, and are graded once."""

    key: str
    lesson: int
    files: Files = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rules:
    """What all units of a run have in common.

    `kit` is the fingerprint of the checks, `seconds` how long a unit may take. `sandboxed` says that no machine
    may grade without a sandbox; else all grade with limits only, so that results are comparable.
    """

    kit: str
    sandboxed: bool
    seconds: int


def fingerprint() -> str:
    """Identifies checks, kit, lessons and pinned packages: another one means that verdicts may differ."""
    digest = hashlib.sha256()
    for path in sorted(_ours()):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _ours() -> Iterator[Path]:
    for pattern in GRADER:
        for found in ROOT.glob(pattern):
            for path in [found] if found.is_file() else found.rglob("*"):
                if path.is_file() and not ASIDE & set(path.relative_to(ROOT).parts):
                    yield path


def unit(lesson: Lesson, files: Files, rules: Rules) -> Unit:
    digest = hashlib.sha256(json.dumps([lesson.number, asdict(rules)]).encode())
    for path in sorted(files):
        digest.update(f"{path}\0{len(files[path])}\0".encode() + files[path])
    return Unit(digest.hexdigest()[:32], lesson.number, files)


def begun(submission: Submission) -> Submission:
    """The submission without the lessons in which nothing was done: they are no work, and would pass some checks.

    A lesson that lacks files which it was handed out with gets a note.
    """
    notes = list(submission.notes)
    lessons = {number: files for number, files in submission.lessons.items() if files != _handed_out(number)}
    if untouched := sorted(submission.lessons.keys() - lessons.keys()):
        names = ", ".join(f"lesson_{number:02}" for number in untouched)
        notes.append(f"As handed out, so counted as not handed in: {names}.")
    for number, files in sorted(lessons.items()):
        if missing := sorted(_handed_out(number).keys() - files.keys()):
            more = f" and {len(missing) - 3} more files" if len(missing) > 3 else ""
            notes.append(f"lesson_{number:02} lacks {', '.join(missing[:3])}{more} of the lesson as handed out.")
    return replace(submission, lessons=lessons, notes=tuple(notes))


@cache
def _handed_out(number: int) -> Files:
    return files_of(catalogue.lesson(number).folder)


def files_of(folder: Path) -> Files:
    """A lesson's files as intake takes them in."""
    number = int(folder.name.removeprefix("lesson_"))
    return sift(Folder(folder.parent), [number])[0][number]


def units(submissions: Iterable[Submission], rules: Rules) -> dict[tuple[int, int], Unit]:
    """The unit of each submission, by its place in the list, and lesson."""
    lessons = {lesson.number: lesson for lesson in catalogue.lessons()}
    return {
        (place, number): unit(lessons[number], files, rules)
        for place, submission in enumerate(submissions)
        for number, files in sorted(submission.lessons.items())
    }


def to_dict(mark: Mark) -> dict[str, Any]:
    return {"seconds": mark.seconds, "stopped": mark.stopped, "report": mark.report.to_dict()}


def from_dict(raw: Mapping[str, Any]) -> Mark:
    return Mark(Report.from_dict(raw["report"]), raw["seconds"], raw["stopped"])
