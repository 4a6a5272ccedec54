"""The release that is in production, which is solution 12: a patch makes it of the lesson as it was handed out.

After a change of either: `uv run python -m checks.lesson_13.old_release` writes the patch.
"""

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.patches import apply, make, read_tree
from checks.kit.lessons.paths import display_path
from checks.kit.testbed.releases import release_folder

PATCH = find_lesson(13).checks_folder / "old_release.patch"


def tree():
    """The files of the app. Migrations are no part of it: the old release only serves."""
    return apply(PATCH.read_bytes(), _app(handed_out(find_lesson(13))), display_path(PATCH))


def folder():
    """Where the old release can be started."""
    return release_folder("lesson_13", tree())


def wanted():
    """What `tree` should be."""
    return _app(read_tree(find_lesson(12).solution))


def _app(files):
    return {name: content for name, content in files.items() if name.startswith("app/")}


if __name__ == "__main__":
    PATCH.write_bytes(make(_app(handed_out(find_lesson(13))), wanted()))
