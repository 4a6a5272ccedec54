"""Makes all that a lesson consists of, from a template and the last solution: `workbook dev new-lesson`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from string import Template

from checks.kit.authoring.chain import TESTS
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson, OutsideEntry, all_lessons
from checks.kit.lessons.paths import ROOT, STATE

TEMPLATE = Path(__file__).parent / "template"
"""Files as they are in a lesson, with ${placeholders}: number, padded (`07`), name (`lesson_07`), title, ..."""


EXAMPLE_OF_OUTSIDE = """\
# [[outside]]
# env = "PAYMENT_URL"
# name = "payment provider"
# status = 201
# body = '{"id": "payment-{n}"}'
"""
"""What lesson.toml says where the app calls nobody."""

EXAMPLE_OF_PGBOUNCER = """\
# [pgbouncer]
# pool_mode = "transaction"
# default_pool_size = "2"
"""
"""What lesson.toml says where the app connects to PostgreSQL itself."""


def new_lesson(number: int, title: str) -> list[Path]:
    """Makes lesson `number`, one more than the last one; the four places where its files are.

    The app is a copy of the last solution with a small new endpoint, which is wrong in the lesson and right in the
    solution, and one check tells them apart. Nothing is made if anything goes wrong. Raises WorkbookError.
    """
    lessons = all_lessons()
    last = lessons[-1]
    _refuse(number, title, lessons)
    name = f"lesson_{number:02}"
    targets = {
        "lesson": ROOT / "lessons" / name,
        "solution": ROOT / "solutions" / name,
        "checks": ROOT / "checks" / name,
        "notebook.ipynb": ROOT / "notebooks" / f"{name}.ipynb",
    }
    for path in targets.values():
        if path.exists():
            raise WorkbookError(f"{path.relative_to(ROOT)} exists already. Move it away, then run this again.")
    values = {
        "number": str(number),
        "padded": f"{number:02}",
        "name": name,
        "previous": f"{last.number:02}",
        "title": title,
        # a lesson whose checks run Alembic themselves says false; the next one has its migrations all the same
        "migrations": str((last.solution / "alembic.ini").is_file()).lower(),
        "app_role": str(last.app_role).lower(),
        "worker": f'worker = "{last.worker}"' if last.worker else '# worker = "app.worker"',
        "env": "".join(f"{key} = {json.dumps(value)}\n" for key, value in last.env.items()),
        "pgbouncer": _settings_of(last.pgbouncer) or EXAMPLE_OF_PGBOUNCER,
        "outside": "\n".join(map(_table, last.outside)) or EXAMPLE_OF_OUTSIDE,
    }
    STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-lesson-", dir=STATE) as folder:
        made = Path(folder)
        _build(made, last, values)
        for part, path in targets.items():
            (made / part).rename(path)
    return list(targets.values())


def _settings_of(pgbouncer: Mapping[str, str]) -> str:
    lines = [f"{key} = {json.dumps(value)}" for key, value in pgbouncer.items()]
    return "\n".join(["[pgbouncer]", *lines, ""]) if lines else ""


def _table(entry: OutsideEntry) -> str:
    """An `[[outside]]` table."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in asdict(entry).items() if value != ""]
    return "\n".join(["[[outside]]", *lines, ""])


def _refuse(number: int, title: str, lessons: list[Lesson]) -> None:
    following = lessons[-1].number + 1
    command = f'The next one is {following}: uv run workbook dev new-lesson {following} "{title}"'
    if any(lesson.number == number for lesson in lessons):
        raise WorkbookError(f"Lesson {number} exists already. {command}")
    if number != following:
        raise WorkbookError(f"Lesson {number} would leave a gap: the last one is {lessons[-1].number}. {command}")
    if not _slug(title) or set(title) & set('"\\$\n'):
        raise WorkbookError(f'A title is a few words, such as "Background jobs", not {title!r}.')


def _slug(title: str) -> str:
    """`background_jobs` for "Background jobs"."""
    return "_".join(re.findall(r"[a-z0-9]+", title.lower()))


def _build(made: Path, last: Lesson, values: dict[str, str]) -> None:
    """All parts of the lesson below the folder `made`."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(last.solution, made / "solution", ignore=shutil.ignore_patterns("__pycache__", TESTS.rstrip("/")))
    _include_example(made / "solution" / "app" / "main.py")
    shutil.copytree(made / "solution", made / "lesson")
    shutil.copytree(TEMPLATE, made, dirs_exist_ok=True, ignore=skip)
    for path in [file for file in TEMPLATE.rglob("*") if file.is_file() and "__pycache__" not in file.parts]:
        filled = made / path.relative_to(TEMPLATE)
        text = Template(filled.read_text(encoding="utf-8")).substitute(values)
        filled.write_text(text, encoding="utf-8")
    (made / "checks" / "test_example.py").rename(made / "checks" / f"test_{_slug(values['title'])}.py")


def _include_example(main: Path) -> None:
    """Adds the template's router to the app. ruff merges and sorts the imports, however long they are by then."""
    lines = main.read_text(encoding="utf-8").splitlines()
    imports = [number for number, line in enumerate(lines) if line.startswith("from app import ")]
    routers = [number for number, line in enumerate(lines) if line.startswith("app.include_router(")]
    if not imports or not routers:
        raise WorkbookError(
            f"{main.name} of the last solution has no line `from app import ...` or no `app.include_router(...)`, "
            "and new-lesson adds its example beside these. Adapt `_include_example` in authoring/new_lesson.py."
        )
    lines.insert(routers[-1] + 1, "app.include_router(example.router)")
    lines.insert(imports[0], "from app import example")
    main.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--quiet"]
    for command in (["check", "--select", "I", "--fix"], ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *settings, str(main)], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise WorkbookError(f"ruff could not sort the imports of {main.name}: {done.stderr.strip()}\nTry: uv sync")
