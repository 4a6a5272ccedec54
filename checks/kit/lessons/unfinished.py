"""What a lesson lacks before anybody can work on it."""

from __future__ import annotations

from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import display_path


def missing(lesson: Lesson) -> list[str]:
    """A line for each thing, with the file and what to write there; empty if the lesson can be worked on.

    Only what a learner needs: solutions, notebooks and variants may be left out of a copy on purpose.
    """
    manifest, hints = display_path(lesson.folder / "lesson.toml"), display_path(lesson.checks_folder / "hints.toml")
    lacks = []
    if not (lesson.folder / "README.md").is_file():
        lacks.append(
            f"{display_path(lesson.folder / 'README.md')}: write the ticket; it tells what is wrong, and for whom"
        )
    if not lesson.title:
        lacks.append(f'{manifest}: title = "...", as the map shows it')
    if not lesson.minutes:
        lacks.append(f"{manifest}: minutes = ..., what the lesson takes a learner")
    if not lesson.edit:
        lacks.append(f'{manifest}: edit = ["app/..."], the files that the solution changes')
    if not lesson.checks:
        lacks.append(
            f'{manifest}: a [[check]] with name = "test_..." and unsolved = "fails" or "passes" for each check'
        )
    for entry in lesson.checks:
        if lesson.gives_hints and entry.unsolved == "fails" and not lesson.hints.get(entry.name):
            lacks.append(f'{hints}: {entry.name} = ["a question", "the cause", "the line to write"]')
    return lacks
