"""Where the `workbook` command and pytest enter the kit.

It has a name of its own because `checks` is a name that others use too: PYTHONPATH may hold a package `checks`, and
Python would find that one first. From here on it finds ours.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import os.path  # pathlib is slow to import
import sys


def root() -> str:
    """The checkout that the current folder is in; otherwise the one that was installed."""
    installed = os.path.abspath(os.path.join(__file__, "..", "..", ".."))  # noqa: PTH100, PTH118
    try:
        folder = os.getcwd()  # noqa: PTH109
    except OSError:  # it was deleted
        return installed
    while not os.path.isfile(os.path.join(folder, "checks", "entry", "bookshop_workbook.py")):  # noqa: PTH113, PTH118
        folder, below = os.path.dirname(folder), folder  # noqa: PTH120
        if folder == below:
            return installed
    return folder


ROOT = root()
if sys.path[0] != ROOT:
    sys.path.insert(0, ROOT)

pytest_plugins = ["checks.kit.grading.plugin"]


def main() -> None:
    """The `workbook` command."""
    from checks.kit.cli import main as command

    command()
