"""The lessons of this workbook, as their `lesson.toml` declares them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.git import restore_advice
from checks.kit.lessons.paths import ROOT


@dataclass(frozen=True, slots=True)
class CheckEntry:
    """What lesson.toml promises about one check.

    `unsolved` says how the lesson fares as it is handed out; `fault` names what the check exposes
    and is empty for a check that only guards what already works. `subsystem` is the part of the app that the check
    counts for, in a lesson with a score for each part.
    """

    name: str
    unsolved: Literal["fails", "passes"]
    fault: str = ""
    subsystem: str = ""


PLACEHOLDERS = (
    *("author", "book", "customer", "review", "order", "other_customer", "last_book", "n"),
    *("email", "password", "refresh_token"),
)
"""What may be in braces in an `[[endpoint]]`; see testbed/endpoints.py for what each one becomes."""

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class EndpointEntry:
    """What lesson.toml says about one endpoint of the app.

    `request` is `METHOD /path`, `body` is JSON; both may hold PLACEHOLDERS in braces. `writes`: it changes rows.
    `login`: it needs a customer who is logged in. `header` is one that it needs: "If-Match: *". `name` is a short name
    for it, if the request is not one.
    """

    request: str
    body: str = ""
    writes: bool = False
    login: bool = False
    header: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class OutsideEntry:
    """What lesson.toml says about a service outside of the shop that the app calls over HTTP.

    `env` is the variable that holds its URL, `name` what it is: "payment provider". `status` and `body`, which is JSON,
    are its usual response; `{n}` in the body is another number each time.
    """

    env: str
    name: str
    status: int = 200
    body: str = ""


NOBODY = "http://127.0.0.1:9"
"""The URL of an outside service for commands that only read it: nothing listens there."""


@dataclass(frozen=True)
class Lesson:
    """One lesson; what a lesson.toml may leave out while it is being written has a default.

    Paths in `edit` and `changed` are relative to the lesson's folder, with `/`.
    """

    number: int
    title: str = ""
    minutes: int = 0
    edit: tuple[str, ...] = ()
    """The files in which the solution differs from the lesson."""
    checks: tuple[CheckEntry, ...] = ()
    gives_hints: bool = True
    """Whether each check that fails as handed out has hints; false in an exam."""
    changed: tuple[str, ...] = ()
    """The files that the solution before this lesson has not, has otherwise, or has and this lesson has not."""
    app: str = "app.main:app"
    workers: int = 1
    schema: str = "schema.sql"
    migrations: bool = False
    """Whether `alembic upgrade head` in the lesson's folder makes the tables, instead of the script `schema`."""
    tests: bool = False
    """Whether the learner writes tests, in `tests/`. What runs them may make databases on the server."""
    app_role: bool = False
    """Whether processes find one more URL in APP_DATABASE_URL: that of a role that owns nothing."""
    pgbouncer: Mapping[str, str] = field(default_factory=dict)
    """The settings of a PgBouncer between the app and PostgreSQL; without them there is none. DIRECT_DATABASE_URL and
    DIRECT_APP_DATABASE_URL are then the URLs that lead past it."""
    worker: str = ""
    """The module that runs beside the app, as `python -m app.worker`; empty if there is none."""
    env: Mapping[str, str] = field(default_factory=dict)
    cost_requests: tuple[str, ...] = ()
    """Requests whose cost on the wire tells what the lesson is about: `METHOD /path`, then a JSON body
    if any, in which `{n}` is another number each time."""
    endpoints: tuple[EndpointEntry, ...] = ()
    """All endpoints of the app, from the `[[endpoint]]` tables."""
    outside: tuple[OutsideEntry, ...] = ()
    """The outside services that the app calls, from the `[[outside]]` tables."""

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
    def large(self) -> Path:
        """The SQL script with the many rows of the fixture `large`, in a lesson that has one."""
        return self.checks_folder / "large.sql"

    @property
    def notebook(self) -> Path:
        return ROOT / "notebooks" / f"{self.name}.ipynb"

    @property
    def settings(self) -> dict[str, str]:
        """The variables of a process of this lesson, besides DATABASE_URL, where no outside service runs."""
        return {entry.env: NOBODY for entry in self.outside} | dict(self.env)

    @cached_property
    def hints(self) -> dict[str, tuple[str, ...]]:
        """Hints by check, from the gentlest to the plainest; read from checks/lesson_NN/hints.toml, if there is one."""
        path = self.checks_folder / "hints.toml"
        raw = _read_toml(path) if path.is_file() else {}
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


def all_lessons() -> list[Lesson]:
    """All lessons, by number."""
    return [load(path) for path in sorted((ROOT / "lessons").glob("lesson_[0-9][0-9]/lesson.toml"))]


def find_lesson(number: int | str) -> Lesson:
    """The lesson of this number; `7`, `"07"`, `"lesson_07"` and `"lessons/lesson_07/"` name the same one."""
    known_number = number_of(number)
    path = None if known_number is None else ROOT / "lessons" / f"lesson_{known_number:02}" / "lesson.toml"
    if path is None or not path.is_file():
        known = ", ".join(str(lesson.number) for lesson in all_lessons())
        raise WorkbookError(f"There is no lesson {number}. Lessons: {known}.{restore_advice(path) if path else ''}")
    return load(path)


def number_of(name: int | str) -> int | None:
    """The number in a lesson's number, name or folder; None for a text that is none of these."""
    digits = Path(str(name)).name.removeprefix("lesson_")
    return int(digits) if digits.isdecimal() else None


def load(path: Path) -> Lesson:
    """Reads one lesson.toml; a wrong or missing key is an error that names file and key."""
    raw = _read_toml(path)
    known = {field.name for field in fields(Lesson)} - {"checks", "endpoints"} | {"check", "endpoint"}
    if unknown := set(raw) - known:
        raise WorkbookError(f"{path}: unknown key {sorted(unknown)[0]!r}. Known: {', '.join(sorted(known))}.")
    try:
        entries = tuple(_entry(path, item) for item in raw.pop("check", []))
        endpoints = tuple(_endpoint(path, item) for item in raw.pop("endpoint", []))
        outside = tuple(_outside(path, item) for item in raw.pop("outside", []))
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        number = {"number": int(path.parent.name.removeprefix("lesson_"))}
        lesson = Lesson(checks=entries, endpoints=endpoints, outside=outside, **(number | values))
    except (TypeError, ValueError) as error:
        raise WorkbookError(f"{path}: {error}") from error
    if lesson.name != path.parent.name:
        raise WorkbookError(f"{path}: number is {lesson.number}, but the folder is called {path.parent.name}.")
    return lesson


def _entry(path: Path, raw: dict[str, Any]) -> CheckEntry:
    entry = CheckEntry(**raw)
    if entry.unsolved not in ("fails", "passes"):
        raise WorkbookError(f"{path}: {entry.name}: unsolved is 'fails' or 'passes', not {entry.unsolved!r}.")
    return entry


def _outside(path: Path, raw: dict[str, Any]) -> OutsideEntry:
    where = f"{path}: outside {raw.get('env', '')!r}"
    _refuse_wrong_types(where, raw, OutsideEntry)
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", raw.get("env", "")) or not raw.get("name"):
        raise WorkbookError(f'{where}: env is a variable and name says what it is: "PAYMENT_URL", "payment provider".')
    entry = OutsideEntry(**raw)
    try:
        json.loads(entry.body.replace("{n}", "0") or "null")
    except ValueError as error:
        raise WorkbookError(f"{where}: body is not JSON: {error}.") from None
    return entry


def _refuse_wrong_types(where: str, raw: dict[str, Any], kind: type[EndpointEntry] | type[OutsideEntry]) -> None:
    known = {field.name: str(field.type) for field in fields(kind)}
    if unknown := sorted(set(raw) - set(known)):
        raise WorkbookError(f"{where}: unknown key {unknown[0]!r}. Known: {', '.join(known)}.")
    words = {"bool": "true or false", "str": "a string", "int": "a number"}
    for key, value in raw.items():
        if type(value).__name__ != known[key]:
            raise WorkbookError(f"{where}: {key} is {words[known[key]]}, not {value!r}.")


def _endpoint(path: Path, raw: dict[str, Any]) -> EndpointEntry:
    where = f"{path}: endpoint {raw.get('request', '')!r}"
    _refuse_wrong_types(where, raw, EndpointEntry)
    if not re.fullmatch(r"[A-Z]+ /\S*", raw.get("request", "")):
        raise WorkbookError(f'{where}: request is a method and a path, as in "GET /books/{{book}}".')
    if not re.fullmatch(r"([\w-]+: \S.*)?", raw.get("header", "")):
        raise WorkbookError(f'{where}: header is a name and a value, as in "If-Match: *".')
    entry = EndpointEntry(**raw)
    for name in PLACEHOLDER.findall(entry.request + entry.body):
        if name not in PLACEHOLDERS:
            raise WorkbookError(f"{where}: unknown placeholder {{{name}}}. Known: {', '.join(PLACEHOLDERS)}.")
    try:
        json.loads(PLACEHOLDER.sub("0", entry.body) or "null")
    except ValueError as error:
        raise WorkbookError(f"{where}: body is not JSON: {error}.") from None
    return entry


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkbookError(f"{path} is missing.{restore_advice(path)}") from None
    except tomllib.TOMLDecodeError as error:
        raise WorkbookError(f"{path} is not valid TOML: {error}") from error
