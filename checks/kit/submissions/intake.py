"""What learners handed in, as submissions: folders, .zip files and git bundles, read and never run.

A path that holds lesson_NN, or lessons/lesson_NN, is one learner's. Any other folder is one of hand-ins, also where
it holds a single one: a wrapping folder, such as GitHub puts into its .zip files, is looked through within a hand-in
and not in the path that was given. A learner's folder that holds nothing but one archive stands for that archive.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from checks.kit.catalogue import CatalogueError
from checks.kit.submissions import archives, bundles
from checks.kit.submissions.folders import Folder, kind, said
from checks.kit.submissions.model import Submission
from checks.kit.submissions.sifting import sift
from checks.kit.submissions.source import HandInUnreadable, Source, clean, is_lesson

SUFFIXES = (".zip", ".bundle")

WRONG_SUFFIXES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".rar", ".7z", ".py", ".ipynb")
"""Of files by which somebody handed something in, though not so that it can be graded."""

MOST_HAND_INS = 5_000
"""Entries of a folder of hand-ins; with more it is taken for a mistake."""

MOST_NOTES = 20
"""Notes on one hand-in; of more, only their number is told."""

KNOWN = "Give a folder of hand-ins, a learner's folder, a .zip or a .bundle."


@dataclass(frozen=True, slots=True)
class _HandIn:
    """One learner's: where it is read, its name, and the path by which the instructor knows it."""

    path: Path
    name: str
    source: str
    is_folder: bool

    @property
    def learner(self) -> str:
        return clean(self.name if self.is_folder else Path(self.name).stem.removesuffix(".tar"))


def submissions(
    paths: Sequence[Path],
    lessons: Collection[int],
    tell: Callable[[str], None] = lambda _: None,
    *,
    one_each: bool = False,
) -> list[Submission]:
    """Every learner's lessons among those of the given numbers, by learner.

    Each path is a folder of hand-ins, or one: a learner's folder, a .zip or a git .bundle. What a folder of hand-ins
    holds besides is told in a sentence each. A hand-in that cannot be read is a submission without lessons, and a
    note says why. With `one_each` every path is one hand-in, whatever it holds. Raises CatalogueError for a path that
    is missing or nothing of the kind, and where bundles cannot be read for want of git.
    """
    found: dict[Path, _HandIn] = {}
    for path in paths:
        for hand_in in _hand_ins(path, tell, one_each):
            found.setdefault(hand_in.path, hand_in)
    if shutil.which("git") is None and any(hand_in.name.lower().endswith(".bundle") for hand_in in found.values()):
        raise CatalogueError("There are git bundles among the hand-ins, and no git to read them with. Install git.")
    ordered = sorted(found.values(), key=lambda hand_in: (hand_in.learner, os.fsencode(hand_in.path)))
    taken: set[str] = set()
    read = [_submission(hand_in, _name(hand_in, taken), lessons) for hand_in in ordered]
    return sorted(read, key=lambda submission: (submission.learner.casefold(), submission.learner))


def _hand_ins(path: Path, tell: Callable[[str], None], one_each: bool) -> Iterator[_HandIn]:
    """The hand-ins that a path on the command line stands for."""
    with _said_of(path):
        real = path.resolve()
        mode = real.stat().st_mode
    name = real.name if path.name in ("", "..") else path.name
    if _is_archive(path.name, mode):
        yield _HandIn(real, name, _shown(path), is_folder=False)
    elif not stat.S_ISDIR(mode):
        raise CatalogueError(f"{_shown(path)} is nothing that can be graded. {KNOWN}")
    elif one_each or _is_one_learners(real):
        yield _HandIn(real, name, _shown(path), is_folder=True)
    else:
        yield from _within(real, path, tell)


def _is_one_learners(folder: Path) -> bool:
    """Whether lessons are right here, or in lessons/ here. A link counts: it is for a hand-in's notes to name it."""
    inside = _modes(folder)
    if stat.S_ISDIR(lessons := inside.get("lessons", 0)):
        inside |= _modes(folder / "lessons")
    named = (mode for name, mode in inside.items() if is_lesson(name))
    return stat.S_ISLNK(lessons) or any(stat.S_ISDIR(mode) or stat.S_ISLNK(mode) for mode in named)


def _within(folder: Path, given: Path, tell: Callable[[str], None]) -> Iterator[_HandIn]:
    """Every learner's in a folder of hand-ins; `given` is that folder as the instructor wrote it."""
    nothing = True
    for name, mode in _modes(folder).items():
        if name.startswith(".") or name == "__MACOSX":
            continue
        path, source = folder / name, _shown(given / name)
        if stat.S_ISDIR(mode) or _is_archive(name, mode):
            nothing = False
            if inner := stat.S_ISDIR(mode) and _only_archive(path):
                yield _HandIn(path / inner, f"{name}{Path(inner).suffix}", f"{source}/{clean(inner)}", is_folder=False)
            else:
                yield _HandIn(path, name, source, stat.S_ISDIR(mode))
        elif stat.S_ISREG(mode) and path.suffix.lower() in WRONG_SUFFIXES:
            nothing = False
            yield _HandIn(path, name, source, is_folder=False)
        else:
            tell(f"{source} is {kind(mode) or 'no folder, .zip or .bundle'} and was passed over.")
    if nothing:
        raise CatalogueError(f"{_shown(given)} holds no hand-ins. {KNOWN}")


def _is_archive(name: str, mode: int) -> bool:
    return stat.S_ISREG(mode) and Path(name).suffix.lower() in SUFFIXES


def _only_archive(folder: Path) -> str | None:
    """The archive that is all a learner's folder holds, as learning platforms hand them out; None if there is more."""
    try:
        inside = {name: mode for name, mode in _modes(folder).items() if not name.startswith((".", "__MACOSX"))}
    except CatalogueError:  # whoever reads it will say so
        return None
    [name, *more] = inside or [""]
    return name if not more and name and _is_archive(name, inside[name]) else None


def _modes(folder: Path) -> dict[str, int]:
    """What is in a folder, by name; a link stands for itself. Raises CatalogueError where there is too much."""
    with _said_of(folder), os.scandir(folder) as entries:
        found = {entry.name: entry.stat(follow_symlinks=False).st_mode for entry in islice(entries, MOST_HAND_INS + 1)}
    if len(found) > MOST_HAND_INS:
        raise CatalogueError(f"{_shown(folder)} has more than {MOST_HAND_INS:,} entries. {KNOWN}")
    return dict(sorted(found.items(), key=lambda item: os.fsencode(item[0])))


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """Turns what the system says about a path that was given into a CatalogueError."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise CatalogueError(f"{_shown(path)} is not there. {KNOWN}") from None
    except (OSError, RuntimeError, ValueError) as error:  # the last two: a circle of links, a NUL
        reason = said(error) if isinstance(error, OSError) else str(error)
        raise CatalogueError(f"{_shown(path)} cannot be read: {clean(reason)}. {KNOWN}") from error


def _shown(path: Path) -> str:
    """A path as the instructor would recognise it: relative to where they are, if it is in there."""
    whole, here = path.absolute(), Path.cwd()
    return clean(str(whole.relative_to(here) if whole.is_relative_to(here) and whole != here else whole))


def _name(hand_in: _HandIn, taken: set[str]) -> str:
    """The learner's name, with what was handed in where another has the same, so that no two are one."""

    def names() -> Iterator[str]:
        yield hand_in.learner
        yield f"{hand_in.learner} ({clean(hand_in.name)})"
        yield f"{hand_in.learner} ({hand_in.source})"
        yield from (f"{hand_in.learner} ({number})" for number in count(2))

    name = next(name for name in names() if name not in taken)
    taken.add(name)
    return name


def _submission(hand_in: _HandIn, learner: str, lessons: Collection[int]) -> Submission:
    try:
        with _opened(hand_in) as source:
            files, notes = sift(source, lessons)
    except HandInUnreadable as error:
        return Submission(learner, hand_in.source, {}, (str(error),))
    except OSError as error:
        return Submission(learner, hand_in.source, {}, (f"It cannot be read: {clean(said(error))}.",))
    except Exception as error:  # whatever is wrong with one must not keep the others from being read
        return Submission(learner, hand_in.source, {}, (f"It cannot be read ({type(error).__name__}).",))
    if len(notes) > MOST_NOTES:
        notes = [*notes[:MOST_NOTES], f"{len(notes) - MOST_NOTES:,} more like these."]
    if not files:
        notes.append("No lesson to grade was found in it. A lesson is a folder lesson_NN, best in a folder lessons.")
    return Submission(learner, hand_in.source, files, tuple(notes))


def _opened(hand_in: _HandIn) -> AbstractContextManager[Source]:
    if hand_in.is_folder:
        return nullcontext(Folder(hand_in.path))
    suffix = Path(hand_in.name).suffix.lower()
    if suffix in WRONG_SUFFIXES:
        raise HandInUnreadable(f"It is a {suffix} file. Ask for a folder, a .zip or a git .bundle.")
    return archives.opened(hand_in.path) if suffix == ".zip" else bundles.opened(hand_in.path)
