"""Holds every lesson to what its lesson.toml promises: `workbook verify`.

The lesson as handed out fails exactly the checks that it declares, the solution passes all, and every
variant is judged as its name says. Apps are graded in parallel, from warm processes.
"""

from __future__ import annotations

import asyncio
import filecmp
import json
import shutil
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checks.kit.catalogue import ROOT, STATE, CatalogueError, Lesson
from checks.kit.warm import graders

LIMIT = 300
"""Seconds after which grading one app counts as hung; a bound for failures."""


@dataclass(frozen=True, slots=True)
class Case:
    """One app to grade. `fails` are the checks that must fail; all others must pass."""

    lesson: Lesson
    label: str
    folder: Path
    fails: frozenset[str]


@dataclass(slots=True)
class Outcome:
    """What grading a case showed. `wrong` is empty where the promise held; `log` is what pytest printed."""

    case: Case
    wrong: list[str]
    seconds: float
    log: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)


def faults_on_paper(lesson: Lesson) -> list[str]:
    """What is wrong with a lesson's files, without running anything."""
    wrong = []
    for path in (lesson.folder / "README.md", lesson.solution, lesson.checks_folder, lesson.notebook):
        if not path.exists():
            wrong.append(f"{path.relative_to(ROOT)} is missing")
    wrong += _differences(lesson)
    wrong += _carried(lesson)
    for entry in lesson.checks:
        if entry.unsolved == "fails" and not lesson.hints.get(entry.name):
            wrong.append(f"{entry.name} has no hint")
        if entry.unsolved == "fails" and not entry.fault:
            wrong.append(f"{entry.name} fails unsolved, but lesson.toml names no fault")
    known = {entry.name for entry in lesson.checks}
    wrong += [f"hints.toml has {name}, which is no check of this lesson" for name in set(lesson.hints) - known]
    labels = [path.name for path in variant_folders(lesson)]
    for kind, least in (("right_", 3), ("wrong_", 5)):
        if (count := sum(label.startswith(kind) for label in labels)) < least:
            wrong.append(f"{count} {kind}* variants, at least {least} are needed")
    wrong += [
        f"variant {label} is neither right_* nor wrong_*" for label in labels if label[:6] not in ("right_", "wrong_")
    ]
    return [f"{lesson.name}: {text}" for text in wrong]


def _differences(lesson: Lesson) -> list[str]:
    """The solution differs from the lesson in the files listed under `edit`, and only there."""
    ignored = {"README.md", "lesson.toml"}
    ours, theirs = (_files(folder) - ignored for folder in (lesson.folder, lesson.solution))
    changed = {
        name
        for name in ours | theirs
        if name not in ours
        or name not in theirs
        or not filecmp.cmp(lesson.folder / name, lesson.solution / name, False)
    }
    wrong = [
        f"{name} differs in the solution, but `edit` does not list it" for name in sorted(changed - set(lesson.edit))
    ]
    return wrong + [f"`edit` lists {name}, but the solution does not change it" for name in set(lesson.edit) - changed]


def _carried(lesson: Lesson) -> list[str]:
    before = ROOT / "solutions" / f"lesson_{lesson.number - 1:02}"
    return [
        f"{name} is not the file of the previous solution, as `carries` says"
        for name in lesson.carries
        if not (before / name).is_file() or not filecmp.cmp(before / name, lesson.folder / name, False)
    ]


def _files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def variant_folders(lesson: Lesson) -> list[Path]:
    return sorted(path.parent for path in (lesson.checks_folder / "variants").glob("*/variant.toml"))


def cases(lesson: Lesson, scratch: Path) -> Iterator[Case]:
    """The lesson, its solution and its variants; variants are put together under `scratch`."""
    unsolved = frozenset(entry.name for entry in lesson.checks if entry.unsolved == "fails")
    yield Case(lesson, "as handed out", lesson.folder, unsolved)
    yield Case(lesson, "solution", lesson.solution, frozenset())
    for folder in variant_folders(lesson):
        yield Case(lesson, folder.name, *variant(lesson, folder, scratch))


def variant(lesson: Lesson, folder: Path, scratch: Path) -> tuple[Path, frozenset[str]]:
    """Puts a variant together under `scratch`: a small overlay on the lesson, the solution or another variant."""
    raw = tomllib.loads((folder / "variant.toml").read_text(encoding="utf-8"))
    if unknown := set(raw) - {"about", "on", "fails"}:
        raise CatalogueError(f"{folder / 'variant.toml'}: unknown key {sorted(unknown)[0]!r}")
    bases = {"lesson": lesson.folder, "solution": lesson.solution}
    below = raw.get("on", "lesson")
    fails = frozenset(raw.get("fails", ()))
    if bool(fails) == folder.name.startswith("right_") or not (below in bases or (folder.parent / below).is_dir()):
        raise CatalogueError(
            f"{folder / 'variant.toml'}: `on` is 'lesson', 'solution' or another variant; a wrong_* names in `fails` "
            "the checks that it fails, a right_* has no `fails`."
        )
    target = scratch / lesson.name / folder.name
    if below in bases:
        shutil.copytree(bases[below], target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copytree(variant(lesson, folder.parent / below, scratch / folder.name)[0], target)
    shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("variant.toml", "__pycache__"))
    return target, fails


def verify(chosen: list[Lesson], jobs: int, tell: Callable[[Outcome, int, int], None], only: str = "") -> list[Outcome]:
    """Grades every case; `tell(outcome, done, total)` is called as each one ends."""
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        scratch = Path(folder)
        todo = [case for lesson in chosen for case in cases(lesson, scratch) if only in case.label]
        outcomes: list[Outcome] = []

        def graded(case: Case, seconds: float, printed: str, results: list[dict[str, Any]]) -> None:
            outcome = Outcome(case, _judge(case, results), seconds, printed, results)
            outcomes.append(outcome)
            tell(outcome, len(outcomes), len(todo))

        asyncio.run(_grade_all(todo, jobs, scratch, graded))
        return outcomes


def _judge(case: Case, results: list[dict[str, Any]]) -> list[str]:
    if not results:
        return ["was not graded to the end"]
    seen = {result["name"]: result["outcome"] for result in results}
    declared = {entry.name for entry in case.lesson.checks}
    wrong = [f"lesson.toml does not list {name}" for name in seen.keys() - declared]
    wrong += [f"lesson.toml lists {name}, which does not exist" for name in declared - seen.keys()]
    wrong += [
        f"{name} must fail, but {outcome}"
        for name, outcome in seen.items()
        if name in case.fails and outcome == "passed"  # blocked by one that failed is no pass
    ]
    wrong += [
        f"{name} must pass, but {outcome}"
        for name, outcome in seen.items()
        if name not in case.fails and outcome != "passed"
    ]
    wrong += [f"{name} is to fail, but is no check" for name in case.fails - seen.keys()]
    headings = _headings(case.lesson)
    sections = {result["finding"]["read"] for result in results if result["finding"] and result["finding"]["read"]}
    return wrong + [
        f"a verdict sends the reader to “{name}”, no heading of the notebook" for name in sections - headings
    ]


def _headings(lesson: Lesson) -> set[str]:
    """The headings of the lesson's notebook."""
    if not lesson.notebook.is_file():
        return set()
    cells = json.loads(lesson.notebook.read_text(encoding="utf-8"))["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines()]
    return {line.lstrip("#").strip() for line in lines if line.startswith("#")}


Tell = Callable[[Case, float, str, list[dict[str, Any]]], None]


async def _grade_all(todo: list[Case], jobs: int, scratch: Path, tell: Tell) -> None:
    async with graders() as warm:
        free = asyncio.Semaphore(jobs)

        async def grade(number: int, case: Case) -> None:
            async with free:
                began = time.perf_counter()
                report, log = scratch / f"{number}.json", scratch / f"{number}.log"
                process = await warm.start(*_arguments(case, report), log=log)
                try:
                    async with asyncio.timeout(LIMIT):
                        await asyncio.shield(process.exit)
                except TimeoutError:
                    pass  # judged as not graded to the end
                finally:
                    process.kill()
                seconds = time.perf_counter() - began
                tell(case, seconds, log.read_text(encoding="utf-8", errors="replace"), _results(report))

        async with asyncio.TaskGroup() as tasks:
            for number, case in enumerate(todo):
                tasks.create_task(grade(number, case))


def _arguments(case: Case, report: Path) -> list[str]:
    checks = str(case.lesson.checks_folder)
    return [
        checks,
        "--target",
        str(case.folder),
        "--report-json",
        str(report),
        "-p",
        "no:cacheprovider",
        "-v",
    ]


def _results(report: Path) -> list[dict[str, Any]]:
    try:
        reports = json.loads(report.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return list(reports[0]["results"]) if reports else []


def keep_logs(outcomes: list[Outcome]) -> Path | None:
    """Writes what pytest printed for each case that broke its promise; None if all held."""
    folder = STATE / "verify"
    shutil.rmtree(folder, ignore_errors=True)
    broken = [outcome for outcome in outcomes if outcome.wrong]
    for outcome in broken:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{outcome.case.lesson.name}-{outcome.case.label.replace(' ', '_')}.log"
        (folder / name).write_text(outcome.log, encoding="utf-8")
    return folder if broken else None
