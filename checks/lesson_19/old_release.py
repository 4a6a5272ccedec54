"""The release that is in production, which is solution 18: a patch makes it of the lesson as it was handed out.

After a change of either: `uv run python -m checks.lesson_19.old_release` writes the patch.
"""

from __future__ import annotations

from pathlib import Path

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.patches import Tree, apply, make, read_tree
from checks.kit.lessons.paths import display_path
from checks.kit.testbed.releases import release_folder

PATCH = find_lesson(19).checks_folder / "old_release.patch"


def tree() -> Tree:
    """The files of the app. Migrations are no part of it: the old release only serves."""
    return apply(PATCH.read_bytes(), _app(handed_out(find_lesson(19))), display_path(PATCH))


def folder() -> Path:
    """Where the old release can be started."""
    return release_folder("lesson_19", tree())


def wanted() -> Tree:
    """What `tree` should be."""
    return _app(read_tree(find_lesson(18).solution))


def _app(files: Tree) -> Tree:
    return {name: content for name, content in files.items() if name.startswith("app/")}


if __name__ == "__main__":
    PATCH.write_bytes(make(_app(handed_out(find_lesson(19))), wanted()))
