"""Finds the submissions on disk and reads them: folders, .zip and .tar files, git bundles, of which nothing is run.

A path that holds lesson_NN, or lessons/lesson_NN, is the submission of one learner. Any other folder holds one
submission per entry, also if it has a single entry: a wrapping folder, such as GitHub puts into its .zip files, is
expected inside a submission, not around it. A learner's folder
that holds one archive, and beside it at most texts that a platform adds, is read as that archive. An archive that holds
no lesson and one archive is read as that one.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.paths import display_path
from checks.kit.report.safe_text import display_name, replace_controls
from checks.kit.submissions.intake import archives, bundles, tars
from checks.kit.submissions.intake.folders import Folder, kind, reason
from checks.kit.submissions.intake.handed_in import handed_in
from checks.kit.submissions.intake.select import select_files
from checks.kit.submissions.intake.source import (
    MAX_FILE_BYTES,
    Source,
    SubmissionUnreadable,
    ignored,
    is_lesson,
)
from checks.kit.submissions.model import Files, HandedIn, Submission

SUFFIXES = (".zip", ".bundle", *tars.SUFFIXES)

UNSUPPORTED_SUFFIXES = (".zst", ".rar", ".7z", ".py", ".ipynb")
"""Suffixes of files that somebody submitted, but that cannot be graded; other files are none of the learners'."""

TEXTS = (".html", ".htm", ".txt", ".md", ".pdf", ".rtf", ".docx", ".json")
"""Suffixes of files that platforms, or learners, put beside an archive."""

MAX_SUBMISSIONS = 5_000
"""Entries of a folder of submissions; a folder with more was probably named by mistake."""

MAX_NOTES = 20
"""Notes on one submission; of more, only their number is given."""

MAX_SEEN = 5
"""Names that a note lists of what is in a submission without a lesson."""

EXPECTED = "Give a folder of submissions, a learner's folder, a .zip, a .tar.gz or a .bundle."


@dataclass(frozen=True, slots=True)
class _Location:
    """Where one submission is. `name` has the suffix of the file; `source` is the path as messages show it."""

    path: Path
    name: str
    source: str
    is_folder: bool

    @property
    def learner(self) -> str:
        return replace_controls(self.name if self.is_folder else Path(self.name).stem.removesuffix(".tar"))


def submissions(
    paths: Sequence[Path],
    lessons: Collection[int],
    on_skip: Callable[[str], None] = lambda _: None,
    *,
    one_each: bool = False,
) -> list[Submission]:
    """Reads every submission below the paths, with the lessons of these numbers, sorted by learner.

    Each path is a folder of submissions or a single one: a learner's folder, an archive or a git .bundle. With
    `one_each`, every path is a single one, whatever it holds. `on_skip` is called with a sentence for each entry of a
    folder of submissions that is none. A submission that cannot be read has no lessons, and a note with the reason.

    Raises WorkbookError for a path that is missing or holds no submission, and for bundles if git is not installed.
    """
    locations: dict[Path, _Location] = {}
    for path in paths:
        for location in _locations(path, on_skip, one_each):
            locations.setdefault(location.path, location)
    if shutil.which("git") is None and any(each.name.lower().endswith(".bundle") for each in locations.values()):
        raise WorkbookError("Some submissions are git bundles, and git is not installed. Install git and try again.")
    ordered = sorted(locations.values(), key=lambda location: (location.learner, os.fsencode(location.path)))
    taken: set[str] = set()
    read = [_read(location, _unique_name(location, taken), lessons) for location in ordered]
    return sorted(read, key=lambda submission: (submission.learner.casefold(), submission.learner))


def _locations(path: Path, on_skip: Callable[[str], None], one_each: bool) -> Iterator[_Location]:
    """The submissions that a path on the command line names."""
    with _workbook_errors(path):
        real = path.resolve()
        mode = real.stat().st_mode
    name = real.name if path.name in ("", "..") else path.name
    if _is_archive(path.name, mode):
        yield _Location(real, name, _display(path), is_folder=False)
    elif not stat.S_ISDIR(mode):
        raise WorkbookError(f"{_display(path)} is not a submission. {EXPECTED}")
    elif one_each or _has_lessons(real):
        yield _Location(real, name, _display(path), is_folder=True)
    else:
        yield from _entries(real, path, on_skip)


def _has_lessons(folder: Path) -> bool:
    """Whether lessons are in the folder, or in lessons/ below it. A link counts: a note on the submission names it."""
    modes = _modes(folder)
    if stat.S_ISDIR(lessons := modes.get("lessons", 0)):
        modes |= _modes(folder / "lessons")
    of_lessons = (mode for name, mode in modes.items() if is_lesson(name))
    return stat.S_ISLNK(lessons) or any(stat.S_ISDIR(mode) or stat.S_ISLNK(mode) for mode in of_lessons)


def _entries(folder: Path, given: Path, on_skip: Callable[[str], None]) -> Iterator[_Location]:
    """The submissions in a folder of them; `given` is the folder as the instructor wrote it."""
    empty = True
    for name, mode in _modes(folder).items():
        if name.startswith(".") or name == "__MACOSX":
            continue
        path, source = folder / name, _display(given / name)
        if stat.S_ISDIR(mode) or _is_archive(name, mode):
            empty = False
            if archive := stat.S_ISDIR(mode) and _only_archive(path):
                as_learner = f"{name}{Path(archive).suffix}"
                yield _Location(path / archive, as_learner, f"{source}/{replace_controls(archive)}", is_folder=False)
            else:
                yield _Location(path, name, source, stat.S_ISDIR(mode))
        elif stat.S_ISREG(mode) and path.suffix.lower() in UNSUPPORTED_SUFFIXES:
            empty = False
            yield _Location(path, name, source, is_folder=False)
        else:
            on_skip(f"{source} is {kind(mode) or 'not a folder, .zip or .bundle'} and was skipped.")
    if empty:
        raise WorkbookError(f"{_display(given)} holds no submissions. {EXPECTED}")


def _is_archive(name: str, mode: int) -> bool:
    return stat.S_ISREG(mode) and Path(name).suffix.lower() in SUFFIXES


def _only_archive(folder: Path) -> str | None:
    """The archive that is a learner's work, as learning platforms export it; None if there are more, or other work."""
    try:
        modes = {name: mode for name, mode in _modes(folder).items() if not name.startswith((".", "__MACOSX"))}
    except WorkbookError:  # reported when the folder itself is read
        return None
    found = [name for name, mode in modes.items() if _is_archive(name, mode)]
    others = modes.keys() - set(found)
    texts = all(stat.S_ISREG(modes[name]) and Path(name).suffix.lower() in TEXTS for name in others)
    return found[0] if len(found) == 1 and texts else None


def _modes(folder: Path) -> dict[str, int]:
    """The mode of each entry of a folder, by name; links are not followed. Raises WorkbookError for too many."""
    with _workbook_errors(folder), os.scandir(folder) as entries:
        modes = {
            entry.name: entry.stat(follow_symlinks=False).st_mode for entry in islice(entries, MAX_SUBMISSIONS + 1)
        }
    if len(modes) > MAX_SUBMISSIONS:
        raise WorkbookError(f"{_display(folder)} has more than {MAX_SUBMISSIONS:,} entries. {EXPECTED}")
    return dict(sorted(modes.items(), key=lambda item: os.fsencode(item[0])))


@contextmanager
def _workbook_errors(path: Path) -> Iterator[None]:
    """Turns the system's errors about a path on the command line into a WorkbookError."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise WorkbookError(f"{_display(path)} does not exist. {EXPECTED}") from None
    except (OSError, RuntimeError, ValueError) as error:  # the last two: a circle of links, a NUL
        message = reason(error) if isinstance(error, OSError) else str(error)
        raise WorkbookError(f"{_display(path)} cannot be read: {replace_controls(message)}. {EXPECTED}") from error


def _display(path: Path) -> str:
    """A path on the command line, relative to the current folder if it lies inside."""
    return replace_controls(display_path(path.absolute(), Path.cwd()))


def _unique_name(location: _Location, taken: set[str]) -> str:
    """The learner's name; if another one has it already, with the name of the file, its path or a number."""

    def names() -> Iterator[str]:
        yield location.learner
        yield f"{location.learner} ({replace_controls(location.name)})"
        yield f"{location.learner} ({location.source})"
        yield from (f"{location.learner} ({number})" for number in count(2))

    name = next(name for name in names() if name not in taken)
    taken.add(name)
    return name


def _read(location: _Location, learner: str, lessons: Collection[int]) -> Submission:
    seen = ""
    try:
        with _open(location) as source:
            files, notes = select_files(source, lessons)
            time = handed_in(source)
            if not files:
                files, notes, seen, time = _look_inside(source, lessons, notes, time)
    except SubmissionUnreadable as error:
        return Submission(learner, location.source, {}, (str(error),))
    except OSError as error:
        return Submission(learner, location.source, {}, (f"It cannot be read: {replace_controls(reason(error))}.",))
    except Exception as error:  # one submission, whatever is wrong with it, must not keep the others from being read
        return Submission(learner, location.source, {}, (f"It cannot be read ({type(error).__name__}).",))
    if len(notes) > MAX_NOTES:
        notes = [*notes[:MAX_NOTES], f"{len(notes) - MAX_NOTES:,} more like these."]
    if not files:
        notes.append(f"No lesson to grade was found in it. {seen or 'A lesson is a folder lesson_NN.'}")
    return Submission(learner, location.source, files, tuple(notes), handed_in=time)


def _look_inside(
    source: Source, lessons: Collection[int], notes: list[str], time: HandedIn | None
) -> tuple[dict[int, Files], list[str], str, HandedIn | None]:
    """The lessons of the only archive in a submission without one, notes, a sentence on what there is, and the time."""
    entries = [entry for entry in source.entries() if not ignored(entry.path)]
    inner = [entry for entry in entries if not entry.kind and Path(entry.path).suffix.lower() in SUFFIXES]
    if len(inner) == 1:
        [content] = source.contents(inner)
        name = display_name(inner[0].path)
        if content.trouble or len(content.data) > MAX_FILE_BYTES:
            return {}, [*notes, f"{name} in it {content.trouble or 'is too large'}: ask for it alone."], "", time
        with tempfile.TemporaryDirectory(prefix="submission-") as folder:
            path = Path(folder) / f"inner{Path(inner[0].path).suffix.lower()}"
            path.write_bytes(content.data)
            with _open(_Location(path, path.name, name, is_folder=False)) as archive:
                files, more = select_files(archive, lessons)
                time = handed_in(archive) or time
        return files, [*notes, f"{name} in it was read.", *more], "", time
    names = sorted({entry.path.split("/")[0] for entry in entries})
    shown = ", ".join(display_name(name) for name in names[:MAX_SEEN]) + (" and more" if len(names) > MAX_SEEN else "")
    return {}, notes, f"It holds {shown or 'no files'}; a lesson is a folder lesson_NN, best in a folder lessons.", time


def _open(location: _Location) -> AbstractContextManager[Source]:
    if location.is_folder:
        return nullcontext(Folder(location.path))
    suffix = Path(location.name).suffix.lower()
    if suffix in UNSUPPORTED_SUFFIXES:
        raise SubmissionUnreadable(f"It is a {suffix} file. Ask for a folder, a .zip, a .tar.gz or a git .bundle.")
    if suffix == ".zip":
        return archives.opened(location.path)
    return bundles.opened(location.path) if suffix == ".bundle" else tars.opened(location.path)
