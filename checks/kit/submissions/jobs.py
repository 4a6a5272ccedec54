"""The jobs of a run: one lesson's files each. Learners who submitted the same files share a job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from checks.kit.lessons.lesson import Lesson, all_lessons, find_lesson
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.paths import ROOT
from checks.kit.report.model import Report
from checks.kit.submissions.intake.folders import Folder
from checks.kit.submissions.intake.select import NOT_SUBMITTED, select_files
from checks.kit.submissions.model import Files, Grade, Submission, timestamp

GRADING_FILES = ("checks/kit/**/*", "checks/lesson_*/**/*", "lessons/**/*", "pyproject.toml")
"""Patterns of the files on which a verdict may depend."""

NOT_GRADING = (
    "checks/kit/cli", "checks/kit/view", "checks/kit/submissions", "checks/kit/authoring", "checks/kit/notebook.py",
    "checks/lesson_*/variants", "checks/lesson_*/handed_out.patch",
)  # fmt: skip
"""Patterns of what is left out of these: it starts a grading, or shows the result, and cannot change a verdict."""


@dataclass(frozen=True, slots=True)
class Job:
    """A lesson to grade. `key` identifies its files, the lesson and the settings of the run: 32 hexadecimal digits."""

    key: str
    lesson: int
    files: Files = field(repr=False)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What all jobs of a run have in common.

    `kit` is the `fingerprint` of the checks. With `sandboxed`, a machine without a sandbox may not grade; without it,
    every machine grades with limits only, so that the results can be compared. `seconds` limits the time of a job.
    """

    kit: str
    sandboxed: bool
    seconds: int


def fingerprint(root: Path = ROOT) -> str:
    """Identifies the checks, the kit, the lessons and the pinned packages: where it differs, verdicts may differ."""
    digest = hashlib.sha256()
    for path in sorted(_grading_files(root)):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _grading_files(root: Path) -> Iterator[Path]:
    left_out = {path for pattern in NOT_GRADING for path in root.glob(pattern)}
    for pattern in GRADING_FILES:
        for path in root.glob(pattern):
            if path.is_file() and "__pycache__" not in path.parts and left_out.isdisjoint([path, *path.parents]):
                yield path


def make_job(lesson: Lesson, files: Files, settings: RunSettings) -> Job:
    """The job that grades these files of the lesson."""
    digest = hashlib.sha256(json.dumps([lesson.number, asdict(settings)]).encode())
    for path in sorted(files):
        digest.update(f"{path}\0{len(files[path])}\0".encode() + files[path])
    return Job(digest.hexdigest()[:32], lesson.number, files)


def make_jobs(submissions: Iterable[Submission], settings: RunSettings) -> dict[tuple[int, int], Job]:
    """The jobs by the submission's index and the lesson's number. Equal files give equal jobs."""
    lessons = {lesson.number: lesson for lesson in all_lessons()}
    return {
        (index, number): make_job(lessons[number], files, settings)
        for index, submission in enumerate(submissions)
        for number, files in sorted(submission.lessons.items())
    }


def without_untouched(submission: Submission) -> Submission:
    """The submission without the lessons in which nothing was changed: they are no work, and would pass some checks.

    A note names them. Another note names files of a lesson as it was handed out that are missing from the submission.
    """
    notes = list(submission.notes)
    lessons = {number: files for number, files in submission.lessons.items() if not is_untouched(number, files)}
    if untouched := sorted(submission.lessons.keys() - lessons.keys()):
        names = ", ".join(f"lesson_{number:02}" for number in untouched)
        notes.append(f"Unchanged, so counted as not submitted: {names}.")
    for number, files in sorted(lessons.items()):
        if missing := sorted(handed_out_files(number).keys() - files.keys()):
            more = f" and {len(missing) - 3} more files" if len(missing) > 3 else ""
            notes.append(f"lesson_{number:02} lacks {', '.join(missing[:3])}{more} of the lesson as handed out.")
    return replace(submission, lessons=lessons, notes=tuple(notes))


def is_untouched(number: int, files: Files) -> bool:
    """Whether the files of a lesson are as they were handed out; line ends do not count."""
    return _without_line_ends(files) == _without_line_ends(handed_out_files(number))


@cache
def handed_out_files(number: int) -> Files:
    """What a submission has of a lesson that nobody touched."""
    files = handed_out(find_lesson(number))
    return {path: content for path, content in files.items() if path.casefold() not in NOT_SUBMITTED}


def _without_line_ends(files: Files) -> dict[str, bytes]:
    """The files with line feeds only: git for Windows, or an editor, may have written CRLF."""
    return {path: content.replace(b"\r\n", b"\n") for path, content in files.items()}


def files_of(folder: Path) -> Files:
    """The files of a folder lesson_NN as a submission of it would have them."""
    number = int(folder.name.removeprefix("lesson_"))
    files, _ = select_files(Folder(folder.parent), [number])
    return files[number]


def to_dict(grade: Grade) -> dict[str, Any]:
    """The grade as JSON: `{"seconds", "stopped", "at", "report"}`."""
    return {
        "seconds": grade.seconds,
        "stopped": grade.stopped,
        "at": timestamp(grade.at),
        "report": grade.report.to_dict(),
    }


def from_dict(content: Mapping[str, Any]) -> Grade:
    """The grade of which `to_dict` made this. Raises KeyError, TypeError or ValueError for anything else."""
    at = content.get("at")  # not there in a grade of an earlier version
    time = datetime.fromisoformat(at) if at else None
    return Grade(Report.from_dict(content["report"]), content["seconds"], content["stopped"], time)
