"""Which changes of a lesson need its tables to be made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from checks.kit.lessons.lesson import find_lesson
from checks.kit.testbed.migration_key import migration_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of solution 06, whose env.py imports the models."""
    solution = find_lesson(6).solution
    return Path(shutil.copytree(solution, tmp_path / "lesson", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.parametrize(
    ("file", "again"),
    [
        ("alembic.ini", True),
        ("migrations/env.py", True),
        ("migrations/versions/0001_as_schema_sql.py", True),
        ("app/models.py", True),
        ("app/base.py", True),  # the models import it
        ("app/__init__.py", True),
        ("app/auth.py", False),
        ("app/main.py", False),
    ],
)
def test_only_what_migrations_import_makes_tables_again(folder: Path, file: str, again: bool) -> None:
    before = migration_key(folder)
    path = folder / file
    if not path.exists():
        [path] = folder.glob("migrations/versions/0001*.py")
    path.write_text(path.read_text() + "\n# another line\n")
    assert (migration_key(folder) != before) == again


@pytest.mark.parametrize("line", ["import importlib", "exec('import app.auth')", "def broken(:"])
def test_the_whole_app_counts_where_imports_cannot_be_followed(folder: Path, line: str) -> None:
    env = folder / "migrations/env.py"
    env.write_text(env.read_text() + f"\n{line}\n")
    before = migration_key(folder)
    (folder / "app/auth.py").write_text("changed = True\n")
    assert migration_key(folder) != before


def test_relative_imports_and_other_files_of_a_migration_count(folder: Path) -> None:
    (folder / "migrations/rows.sql").write_text("SELECT 1")
    (folder / "app/models.py").write_text("from . import auth\n")
    before = migration_key(folder)
    (folder / "migrations/rows.sql").write_text("SELECT 2")
    between = migration_key(folder)
    assert between != before
    (folder / "app/auth.py").write_text("changed = True\n")
    assert migration_key(folder) != between
