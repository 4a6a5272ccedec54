"""Which of a hand-in's files are a lesson's, and what of them is read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from checks.kit.submissions.model import Files
from checks.kit.submissions.source import (
    ENTRIES,
    FILE_BYTES,
    HAND_IN_BYTES,
    HAND_IN_FILES,
    PATH_BYTES,
    Entry,
    HandInUnreadable,
    Source,
    clean,
    ignored,
    is_lesson,
    shown,
)

THE_GRADERS = ("lesson.toml", "readme.md")
"""Files at a lesson's top, in lower case, of which the grader has its own; some disks take no notice of case."""

DRIVE = re.compile("[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class _File:
    """An entry of a lesson; `path` is relative to the lesson's folder, and empty where it stands in for that."""

    entry: Entry
    lesson: str
    path: str

    @property
    def shown(self) -> str:
        return shown(f"{self.lesson}/{self.path}" if self.path else self.entry.path)


def sift(source: Source, lessons: Collection[int]) -> tuple[dict[int, Files], list[str]]:
    """The files of the wanted lessons, by the lesson's number, and notes on what was left out.

    Links, devices, overlong files and names that are unfit for a disk are left out one by one. A lesson of which
    a file cannot be read is left out as a whole, for half a lesson would be judged wrongly.
    Raises HandInUnreadable where the hand-in is beyond the limits.
    """
    notes: list[str] = []
    wanted = {f"lesson_{number:02}": number for number in lessons}
    found = _placed(_sound(source.entries(), notes), notes)
    chosen = {name: _chosen(name, found[name], notes) for name in sorted(wanted.keys() & found)}
    files = [file for name in chosen for file in _fit(name, chosen[name], notes)]
    taken = _read(source, files, notes)
    return {wanted[name]: taken[name] for name in taken if taken[name]}, notes


def _sound(entries: Iterable[Entry], notes: list[str]) -> list[Entry]:
    """The entries that are not ignored and do not point out of the hand-in, by path."""
    sound = []
    for number, entry in enumerate(entry for entry in entries if not ignored(entry.path)):
        if number == ENTRIES:
            raise HandInUnreadable(f"It holds more than {ENTRIES:,} files. Ask for the lessons folder alone.")
        if any(part in ("", ".", "..") or DRIVE.match(part) for part in entry.path.split("/")):
            notes.append(f"{shown(entry.path)} is a path that leads elsewhere and was left out.")
        else:
            sound.append(entry)
    return sorted(sound, key=lambda entry: entry.path)


def _placed(entries: list[Entry], notes: list[str]) -> dict[str, dict[str, list[_File]]]:
    """The entries of every lesson's name, by the folder in which they are."""
    found: dict[str, dict[str, list[_File]]] = {}
    for entry in entries:
        parts = entry.path.split("/")
        depth = next((depth for depth, name in enumerate(parts) if is_lesson(name)), len(parts))
        if depth < len(parts) - 1:
            file = _File(entry, parts[depth], "/".join(parts[depth + 1 :]))
            found.setdefault(file.lesson, {}).setdefault("/".join(parts[: depth + 1]), []).append(file)
        elif entry.trouble:
            notes.append(f"{shown(entry.path)} was left out: {entry.trouble}.")
        elif entry.kind and (depth < len(parts) or parts[-1] == "lessons"):
            notes.append(f"{shown(entry.path)} is {entry.kind} and was left out.")
    return found


def _chosen(name: str, folders: dict[str, list[_File]], notes: list[str]) -> list[_File]:
    """The lesson's files in the one folder that counts: in a folder `lessons` if any is, then the shallowest."""

    def rank(folder: str) -> tuple[bool, int, str]:
        parts = folder.split("/")
        return parts[-2:-1] != ["lessons"], len(parts), folder

    best = min(folders, key=rank)
    if len(folders) > 1:
        notes.append(f"{name} is there {len(folders)} times; {shown(best)} was taken.")
    return folders[best]


def _fit(name: str, files: list[_File], notes: list[str]) -> Iterator[_File]:
    """A lesson's files that may be read; none where the lesson is not to be trusted as a whole."""
    files = [file for file in files if not (file.path.endswith(".pyc") or file.path.casefold() in THE_GRADERS)]
    if spoilt := _spoilt(files):
        notes.append(f"{spoilt}, so {name} was left out.")
        return
    if not files:
        notes.append(f"{name} has no files to grade.")
    for file in files:
        if fault := _unfit(file):
            notes.append(f"{file.shown} {fault} and was left out.")
        else:
            yield file


def _spoilt(files: list[_File]) -> str:
    """Why a lesson's files would be judged wrongly: one cannot be read, or readers would differ on what it is."""
    folders = {folder for file in files for folder in accumulate(file.path.split("/")[:-1], "{}/{}".format)}
    before = ""
    for file in files:
        if file.entry.trouble:
            return f"{file.shown} cannot be read ({file.entry.trouble})"
        if file.path == before or file.path in folders:
            return f"{file.shown} is there more than once"
        before = file.path
    return ""


def _unfit(file: _File) -> str:
    if file.entry.kind:
        return f"is {file.entry.kind}"
    if clean(file.path) != file.path:
        return "has control characters or bytes that are no UTF-8 in its name"
    if "\\" in file.path:
        return "has a backslash in its name"
    if len(file.path.encode()) > PATH_BYTES:
        return f"has a path of more than {PATH_BYTES} bytes"
    if file.entry.size > FILE_BYTES:
        return f"is larger than {FILE_BYTES // 1_000_000} MB"
    return ""


def _read(source: Source, files: list[_File], notes: list[str]) -> dict[str, dict[str, bytes]]:
    """What the files hold, by lesson and path; a lesson with a file that cannot be read is not among them."""
    too_much = HandInUnreadable(
        f"It holds more than {HAND_IN_FILES:,} files or {HAND_IN_BYTES // 1_000_000} MB in its lessons, so nothing "
        "of it was taken. Ask for it without data files."
    )
    if len(files) > HAND_IN_FILES or sum(file.entry.size for file in files) > HAND_IN_BYTES:
        raise too_much
    taken: dict[str, dict[str, bytes]] = {file.lesson: {} for file in files}
    total = 0
    for file, content in zip(files, source.contents([file.entry for file in files]), strict=True):
        total += len(content.data)
        if total > HAND_IN_BYTES:
            raise too_much
        if file.lesson not in taken:
            continue
        if content.trouble:
            del taken[file.lesson]
            notes.append(f"{file.shown} cannot be read ({content.trouble}), so {file.lesson} was left out.")
        elif len(content.data) > FILE_BYTES:
            notes.append(f"{file.shown} is larger than {FILE_BYTES // 1_000_000} MB and was left out.")
        else:
            taken[file.lesson][file.path] = content.data
    return taken
