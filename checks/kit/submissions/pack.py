"""Packs a learner's lessons into one .zip for the instructor, and reads it again as the grader will."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import unicodedata
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import ROOT, display_path
from checks.kit.submissions.intake import archives
from checks.kit.submissions.intake.folders import Folder
from checks.kit.submissions.intake.handed_in import ABOUT
from checks.kit.submissions.intake.select import select_files
from checks.kit.submissions.intake.source import SubmissionUnreadable
from checks.kit.submissions.jobs import fingerprint
from checks.kit.submissions.model import Files

MAX_NAME = 60
"""Characters of a learner's name in the name of the file."""


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to pack: the files of each lesson, and a sentence on each thing that is left out."""

    lessons: Mapping[int, Files]
    notes: tuple[str, ...]


def read_work(lessons: Collection[Lesson]) -> Work:
    """The learner's files of these lessons, chosen as the grader chooses them. Raises WorkbookError."""
    try:
        files, notes = select_files(Folder(ROOT / "lessons"), [lesson.number for lesson in lessons])
    except SubmissionUnreadable as error:
        raise WorkbookError(f"lessons cannot be packed. {error}") from error
    return Work(files, tuple(notes))


def broken(files: Files) -> list[str]:
    """A sentence on each file that Python cannot read."""
    sentences = []
    for name, data in files.items():
        if name.endswith(".py"):
            try:
                compile(data, name, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
                sentences.append(f"{name}{line}: {getattr(error, 'msg', error)}")
    return sentences


def pack(lessons: Mapping[int, Files], learner: str, folder: Path, now: datetime) -> Path:
    """Writes the .zip, named after learner and time, and reads it again; returns its path. Nothing is overwritten.

    Raises WorkbookError, and leaves no file, if the grader would not find in it what was packed.
    """
    about = {
        "learner": learner,
        "packed_at": now.isoformat(timespec="seconds"),
        "checks": fingerprint(),
        "python": platform.python_version(),
        "lessons": {
            _name(number): {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())}
            for number, files in sorted(lessons.items())
        },
    }
    path = _free(folder / f"{_slug(learner)}-{now:%Y%m%d-%H%M}.zip")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(draft, "x", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(ABOUT, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
            for number, files in sorted(lessons.items()):
                for name, data in sorted(files.items()):
                    archive.writestr(f"lessons/{_name(number)}/{name}", data)
        _read_again(draft, lessons)
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _read_again(path: Path, lessons: Mapping[int, Files]) -> None:
    try:
        with archives.opened(path) as archive:
            found, notes = select_files(archive, lessons)
    except SubmissionUnreadable as error:
        raise WorkbookError(f"The file would not be graded, so it was not kept: {error}") from error
    if found != {number: dict(files) for number, files in lessons.items()}:
        raise WorkbookError(f"The file is not whole, so it was not kept. {' '.join(notes)} Try again.")


def _free(path: Path) -> Path:
    """The path, or one with a number if there is such a file."""
    if not path.parent.is_dir():
        raise WorkbookError(
            f"{display_path(path.parent)} is not a folder. Make it first, or name another one with --out."
        )
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def _slug(learner: str) -> str:
    """The name for a file: letters of all scripts stay, as do digits; the rest becomes a hyphen."""
    text = unicodedata.normalize("NFC", learner)
    return re.sub(r"\W+", "-", text).strip("-_")[:MAX_NAME].lower() or "submission"


def _name(number: int) -> str:
    return f"lesson_{number:02}"
