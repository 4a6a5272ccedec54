"""A lesson's schema.sql, which a learner may have edited: what is wrong with it is said with its line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.paths import display_path


class SchemaError(WorkbookError):
    """The script that makes the tables cannot be read or fails. `line` is 0 where it is not known."""

    def __init__(self, path: Path, line: int, what: str) -> None:
        self.path = display_path(path)
        self.line = line
        self.what = what
        where = f"{self.path}, line {line}" if line else self.path
        super().__init__(f"The tables cannot be made. {where}: {what}")


def read_schema(path: Path) -> str:
    """The script, also where an editor has put a byte order mark before it. Raises SchemaError."""
    script = path.read_bytes()
    try:
        return script.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = script.count(b"\n", 0, error.start) + 1
        raise SchemaError(path, line, "this line is not in UTF-8. Save the file in this encoding.") from None


@contextlib.contextmanager
def explaining(path: Path, script: str) -> Iterator[None]:
    """What PostgreSQL does not accept of the script becomes a SchemaError."""
    import asyncpg

    try:
        yield
    except asyncpg.PostgresError as error:
        position = getattr(error, "position", None)
        if position is None and not _is_about_sql(error.sqlstate or ""):
            raise
        line = script.count("\n", 0, int(position) - 1) + 1 if position else 0
        raise SchemaError(path, line, f"{error}") from error


class RowsDoNotFit(WorkbookError):
    """The tables that a learner's schema makes do not take the rows of a lesson's script."""


@contextlib.contextmanager
def explaining_rows(path: Path) -> Iterator[None]:
    """What PostgreSQL does not accept of a script with rows becomes a RowsDoNotFit."""
    import asyncpg

    try:
        yield
    except asyncpg.PostgresError as error:
        if not _is_about_sql(error.sqlstate or ""):
            raise
        detail = f" {error.detail}" if getattr(error, "detail", None) else ""
        raise RowsDoNotFit(
            f"Your tables do not take the rows of {display_path(path)}, with which the check fills them: "
            f"{error}.{detail}"
        ) from error


def _is_about_sql(state: str) -> bool:
    """Whether an SQLSTATE tells of the statements: their data, the rules of the tables, syntax and names."""
    return state[:2] in ("0A", "22", "23", "2B", "3F", "42")
