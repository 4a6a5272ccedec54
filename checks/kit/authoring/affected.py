"""What a change can have affected: the cases that `workbook dev verify` runs by default."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field

from checks.kit.authoring.cases import AS_HANDED_OUT, SOLUTION, Case
from checks.kit.lessons.git import HANDED_OUT, GitError, git, names
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.variants import variants

EVERYTHING = re.compile(
    r"pyproject\.toml|checks/__init__\.py|checks/kit/(__init__\.py|(grading|testbed|wire|service|postgres|report|lessons)/.*)"
)
"""What every verdict depends on. The command line, its page, submissions, authoring and notebook.py grade nothing."""

PART = re.compile(
    r"(?P<folder>lessons|solutions|checks)/lesson_(?P<number>\d+)/(variants/(?P<variant>\w+)\.patch$)?(?P<file>.*)"
)
UPSTREAM = ("refs/remotes/origin/HEAD", "refs/remotes/origin/main", "refs/heads/main")


Labels = dict[int, set[str] | None]
"""Labels of cases by the number of their lesson; None: all cases of the lesson."""


@dataclass(slots=True)
class Affected:
    """The cases that a change can have affected, and in half a sentence why."""

    why: str
    everything: bool = False
    labels: Labels = field(default_factory=dict)

    def holds(self, case: Case) -> bool:
        labels = self.labels.get(case.lesson.number, set())
        return self.everything or labels is None or case.label in labels


def affected(lessons: list[Lesson]) -> Affected:
    """What the changes since the branch left main, committed or not, can have affected."""
    try:
        since, paths = _changed()
    except GitError as error:
        return Affected(f"everything, because git does not say what was changed ({error})", everything=True)
    return by_paths(lessons, paths, since)


def by_paths(lessons: list[Lesson], paths: list[str], since: str) -> Affected:
    """What a change of these paths, relative to the checkout, can have affected."""
    shared = [path for path in paths if EVERYTHING.fullmatch(path)]
    if shared:
        more = f" and {len(shared) - 1} more files" if len(shared) > 1 else ""
        return Affected(f"everything, because {shared[0]}{more} changed {since}", everything=True)
    by_number = {lesson.number: lesson for lesson in lessons}
    labels: Labels = {}
    for path in paths:
        match = PART.match(path)
        if match and (lesson := by_number.get(int(match["number"]))):
            found = _cases_of(lesson, match)
            known = labels.get(lesson.number, set())
            labels[lesson.number] = None if found is None or known is None else known | found
    labels = {number: only for number, only in sorted(labels.items()) if only != set()}
    if not labels:
        return Affected(f"nothing, because no lesson and nothing that grades it changed {since}")
    parts = [f"lesson {number}" + (f" ({', '.join(sorted(only))})" if only else "") for number, only in labels.items()]
    return Affected(f"{', '.join(parts)}, because that changed {since}", labels=labels)


def _cases_of(lesson: Lesson, match: re.Match[str]) -> set[str] | None:
    """Labels of the lesson's cases that a change of this path affects; None for all."""
    if match["variant"]:
        return _built_on(lesson, match["variant"])
    if match["file"] in ("README.md", "hints.toml", HANDED_OUT):  # no verdict depends on them
        return set()
    if match["folder"] == "solutions":
        return {SOLUTION} | _built_on(lesson, "solution")
    if match["folder"] == "lessons" and match["file"] != "lesson.toml":
        return {AS_HANDED_OUT} | _built_on(lesson, "lesson")
    return None


def _built_on(lesson: Lesson, base: str) -> set[str]:
    """The variant of this name, if it is one, and all variants that lie on it."""
    below = {variant.name: variant.on for variant in variants(lesson)}
    found = {base} & below.keys()
    wanted = {base}
    while wanted:
        wanted = {name for name, on in below.items() if on in wanted} - found
        found |= wanted
    return found


def _changed() -> tuple[str, list[str]]:
    """Since when, in words, and all paths that were changed since."""
    since, base = "since the last commit", "HEAD"
    for reference in UPSTREAM:
        with contextlib.suppress(GitError):  # this checkout has no such branch
            base = git("merge-base", "HEAD", reference).decode().strip()
            since = f"since the last commit shared with {reference.split('/', 2)[2]}"
            break
    tracked = names(git("diff", "--name-only", "--relative", "--no-renames", "-z", base))
    untracked = names(git("ls-files", "--others", "--exclude-standard", "-z"))
    return since, sorted({*tracked, *untracked})
