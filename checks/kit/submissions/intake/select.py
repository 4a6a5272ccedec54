"""Selects the files of the lessons in a submission, and reads them within limits."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from checks.kit.report.safe_text import display_name, replace_controls
from checks.kit.submissions.intake.source import (
    MAX_ENTRIES,
    MAX_FILE_BYTES,
    MAX_PATH_BYTES,
    MAX_SUBMISSION_BYTES,
    MAX_SUBMISSION_FILES,
    Entry,
    Source,
    SubmissionUnreadable,
    ignored,
    is_lesson,
    lesson_of,
)
from checks.kit.submissions.model import Files

NOT_SUBMITTED = ("lesson.toml", "readme.md")
"""Files in a lesson's folder, in lower case, of which the grader has its own. Some disks ignore the case of names."""

DRIVE = re.compile("[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class _File:
    """An entry of a lesson. `path` is relative to the lesson's folder, and empty if the entry takes its place."""

    entry: Entry
    lesson: str
    path: str

    @property
    def display(self) -> str:
        return display_name(f"{self.lesson}/{self.path}" if self.path else self.entry.path)


def select_files(source: Source, lessons: Collection[int]) -> tuple[dict[int, Files], list[str]]:
    """The files of these lessons, by the lesson's number, and notes: a sentence on each thing that was left out.

    Links, devices, files that are too large and names that are unfit for a disk are left out one by one. A lesson of
    which a file cannot be read is left out as a whole: its grade would be wrong without that file.
    Raises SubmissionUnreadable if the submission exceeds a limit.
    """
    notes: list[str] = []
    wanted = {f"lesson_{number:02}": number for number in lessons}
    by_lesson = _by_lesson(_inside(source.entries(), notes), notes)
    chosen = {name: _choose_folder(name, by_lesson[name], notes) for name in sorted(wanted.keys() & by_lesson)}
    files = [file for name in chosen for file in _acceptable(name, chosen[name], notes)]
    contents = _read(source, files, notes)
    return {wanted[name]: contents[name] for name in contents if contents[name]}, notes


def _inside(entries: Iterable[Entry], notes: list[str]) -> list[Entry]:
    """The entries that are not ignored and whose path does not lead out of the submission, sorted by path."""
    inside = []
    for number, entry in enumerate(entry for entry in entries if not ignored(entry.path)):
        if number == MAX_ENTRIES:
            raise SubmissionUnreadable(f"It holds more than {MAX_ENTRIES:,} files. Ask for the lessons folder alone.")
        if any(part in ("", ".", "..") or DRIVE.match(part) for part in entry.path.split("/")):
            notes.append(f"{display_name(entry.path)} is a path that leads elsewhere and was left out.")
        else:
            inside.append(entry)
    return sorted(inside, key=lambda entry: entry.path)


def _by_lesson(entries: list[Entry], notes: list[str]) -> dict[str, dict[str, list[_File]]]:
    """The entries of each lesson, by the lesson's name and the folder in which they are."""
    by_lesson: dict[str, dict[str, list[_File]]] = {}
    for entry in entries:
        parts = entry.path.split("/")
        depth = next((depth for depth, name in enumerate(parts) if is_lesson(name)), len(parts))
        if depth < len(parts) - 1:
            file = _File(entry, lesson_of(parts[depth]), "/".join(parts[depth + 1 :]))
            by_lesson.setdefault(file.lesson, {}).setdefault("/".join(parts[: depth + 1]), []).append(file)
        elif entry.trouble:
            notes.append(f"{display_name(entry.path)} was left out: {entry.trouble}.")
        elif entry.kind and (depth < len(parts) or parts[-1] == "lessons"):
            notes.append(f"{display_name(entry.path)} is {entry.kind} and was left out.")
    return by_lesson


def _choose_folder(name: str, folders: dict[str, list[_File]], notes: list[str]) -> list[_File]:
    """The lesson's files in one of the folders: of its own name, in a folder `lessons`, and else the least deep."""

    def rank(folder: str) -> tuple[bool, bool, int, str]:
        parts = folder.split("/")
        return parts[-1] != name, parts[-2:-1] != ["lessons"], len(parts), folder

    best = min(folders, key=rank)
    if len(folders) > 1:
        notes.append(f"{name} is there {len(folders)} times; {display_name(best)} was taken.")
    elif best.split("/")[-1] != name:
        notes.append(f"{display_name(best)} was taken for {name}.")
    return folders[best]


def _acceptable(name: str, files: list[_File], notes: list[str]) -> Iterator[_File]:
    """The files of a lesson that may be read; none if the lesson as a whole cannot be graded."""
    files = [file for file in files if not (file.path.endswith(".pyc") or file.path.casefold() in NOT_SUBMITTED)]
    if problem := _lesson_problem(files):
        notes.append(f"{problem}, so {name} was left out.")
        return
    if not files:
        notes.append(f"{name} has no files to grade.")
    for file in files:
        if problem := _file_problem(file):
            notes.append(f"{file.display} {problem} and was left out.")
        else:
            yield file


def _lesson_problem(files: list[_File]) -> str:
    """Why the lesson cannot be graded, "" if it can: a file cannot be read, or it is not clear which one counts."""
    folders = {folder for file in files for folder in accumulate(file.path.split("/")[:-1], "{}/{}".format)}
    before = ""
    for file in files:
        if file.entry.trouble:
            return f"{file.display} cannot be read ({file.entry.trouble})"
        if file.path == before or file.path in folders:
            return f"{file.display} is there more than once"
        before = file.path
    return ""


def _file_problem(file: _File) -> str:
    """Why a file is left out, as the end of a sentence; "" if it is not."""
    if file.entry.kind:
        return f"is {file.entry.kind}"
    if replace_controls(file.path) != file.path:
        return "has control characters or bytes that are no UTF-8 in its name"
    if "\\" in file.path:
        return "has a backslash in its name"
    if len(file.path.encode()) > MAX_PATH_BYTES:
        return f"has a path of more than {MAX_PATH_BYTES} bytes"
    if file.entry.size > MAX_FILE_BYTES:
        return f"is larger than {MAX_FILE_BYTES // 1_000_000} MB"
    return ""


def _read(source: Source, files: list[_File], notes: list[str]) -> dict[str, dict[str, bytes]]:
    """The contents of the files, by lesson and path, without the lessons that have a file that cannot be read."""
    too_much = SubmissionUnreadable(
        f"It holds more than {MAX_SUBMISSION_FILES:,} files or {MAX_SUBMISSION_BYTES // 1_000_000} MB in its lessons, "
        "so nothing of it was taken. Ask for it without data files."
    )
    if len(files) > MAX_SUBMISSION_FILES or sum(file.entry.size for file in files) > MAX_SUBMISSION_BYTES:
        raise too_much
    contents: dict[str, dict[str, bytes]] = {file.lesson: {} for file in files}
    total = 0
    for file, content in zip(files, source.contents([file.entry for file in files]), strict=True):
        total += len(content.data)
        if total > MAX_SUBMISSION_BYTES:
            raise too_much
        if file.lesson not in contents:
            continue
        if content.trouble:
            del contents[file.lesson]
            notes.append(f"{file.display} cannot be read ({content.trouble}), so {file.lesson} was left out.")
        elif len(content.data) > MAX_FILE_BYTES:
            notes.append(f"{file.display} is larger than {MAX_FILE_BYTES // 1_000_000} MB and was left out.")
        else:
            contents[file.lesson][file.path] = content.data
    return contents
