"""The lessons of this workbook, as their `lesson.toml` declares them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
"""The checkout: the folder that holds lessons/, solutions/, checks/ and notebooks/."""

STATE = ROOT / ".workbook"
"""Everything the workbook itself writes: server data, progress, copies made by `workbook reset`."""


class CatalogueError(Exception):
    """A lesson is missing, or its lesson.toml cannot be used as it stands."""


@dataclass(frozen=True, slots=True)
class CheckEntry:
    """What lesson.toml promises about one check.

    `unsolved` says how the lesson fares as it is handed out; `fault` names what the check exposes
    and is empty for a check that only guards what already works.
    """

    name: str
    unsolved: Literal["fails", "passes"]
    fault: str = ""


@dataclass(frozen=True)
class Lesson:
    """One lesson. Paths in `edit` and `carries` are relative to the lesson's folder, with `/`."""

    number: int
    title: str
    minutes: int
    edit: tuple[str, ...]
    checks: tuple[CheckEntry, ...]
    carries: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    app: str = "app.main:app"
    workers: int = 1
    schema: str = "schema.sql"
    env: Mapping[str, str] = field(default_factory=dict)
    tour: tuple[str, ...] = ()
    """Requests whose cost on the wire tells what the lesson is about: `METHOD /path`, then a JSON body
    if any, in which `{n}` is another number each time."""

    @property
    def name(self) -> str:
        return f"lesson_{self.number:02}"

    @property
    def folder(self) -> Path:
        return ROOT / "lessons" / self.name

    @property
    def solution(self) -> Path:
        return ROOT / "solutions" / self.name

    @property
    def checks_folder(self) -> Path:
        return ROOT / "checks" / self.name

    @property
    def notebook(self) -> Path:
        return ROOT / "notebooks" / f"{self.name}.ipynb"

    @cached_property
    def hints(self) -> dict[str, tuple[str, ...]]:
        """Hints by check, from the gentlest to the plainest; read from checks/lesson_NN/hints.toml."""
        raw = _read_toml(self.checks_folder / "hints.toml")
        return {name: tuple(tiers) for name, tiers in raw.items()}

    @cached_property
    def titles(self) -> dict[str, str]:
        """Each check's sentence: its docstring, read from checks/lesson_NN without running anything."""
        import ast

        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(self.checks_folder.glob("test_*.py"))]
        functions = [node for tree in trees for node in tree.body if isinstance(node, ast.AsyncFunctionDef)]
        return {
            node.name: sentence(ast.get_docstring(node) or node.name)
            for node in functions
            if node.name.startswith("test_")
        }

    def check(self, name: str) -> CheckEntry | None:
        return next((entry for entry in self.checks if entry.name == name), None)


def sentence(docstring: str) -> str:
    """A docstring as one line, without its full stop."""
    return " ".join(docstring.split()).rstrip(".")


def lessons() -> list[Lesson]:
    """All lessons, by number."""
    return [load(path) for path in sorted((ROOT / "lessons").glob("lesson_*/lesson.toml"))]


def lesson(number: int | str) -> Lesson:
    """The lesson of this number; `7`, `"07"` and `"lesson_07"` name the same one."""
    digits = str(number).removeprefix("lesson_")
    path = ROOT / "lessons" / f"lesson_{int(digits):02}" / "lesson.toml" if digits.isdecimal() else None
    if path is None or not path.is_file():
        there = ", ".join(str(known.number) for known in lessons())
        raise CatalogueError(f"There is no lesson {number}. Lessons: {there}.")
    return load(path)


def load(path: Path) -> Lesson:
    """Reads one lesson.toml; a wrong or missing key is an error that names file and key."""
    raw = _read_toml(path)
    known = {"number", "title", "minutes", "edit", "carries", "covers", "app", "workers", "schema", "env", "tour"}
    if unknown := set(raw) - known - {"check"}:
        raise CatalogueError(f"{path}: unknown key {sorted(unknown)[0]!r}. Known: {', '.join(sorted(known))}.")
    try:
        entries = tuple(_entry(path, item) for item in raw.get("check", []))
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in raw.items() if key != "check"
        }
        return Lesson(checks=entries, **values)
    except TypeError as error:
        raise CatalogueError(f"{path}: {error}") from error


def _entry(path: Path, raw: dict[str, Any]) -> CheckEntry:
    entry = CheckEntry(**raw)
    if entry.unsolved not in ("fails", "passes"):
        raise CatalogueError(f"{path}: {entry.name}: unsolved is 'fails' or 'passes', not {entry.unsolved!r}.")
    return entry


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CatalogueError(f"{path} is missing. Restore it with: git checkout -- {path}") from None
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError(f"{path} is not valid TOML: {error}") from error
