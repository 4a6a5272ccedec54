"""The submissions of a class: right, wrong, broken and hostile work in every form, and what each must get.

    python -m checks.self_test.roster FOLDER [LEARNERS [LESSONS [SEED]]]

writes FOLDER/submissions and FOLDER/expected.json, which names the checks that must pass: {learner: {lesson: [...]}}.
Every submission differs from every other, as in a real class, so that no two share a job.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from checks.kit.authoring.cases import cases
from checks.kit.lessons.lesson import Lesson, find_lesson
from checks.kit.lessons.paths import ROOT

Expected = dict[str, dict[str, list[str]]]

BROKEN = {
    "a syntax error": lambda main: main + "\ndef unfinished(:\n",
    "an import of nothing": lambda main: "import no_such_module\n" + main,
    "an empty file": lambda main: "",
    "no app": lambda main: "application = None\n",
}
HOSTILE = {
    "leaves at import": "import os\nos._exit(0)\n",
    "succeeds at import": "raise SystemExit(0)\n",
    "loops at import": "while True: pass\n",
    "forks at import": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n",
    "takes eight gigabytes": "hoard = bytearray(8 << 30)\n",
    "kills everybody": "import os\nos.kill(-1, 9)\nos._exit(0)\n",
    "reads the solution": f"exec(open('{ROOT}/solutions/lesson_00/app/main.py').read())\n",
}
IN_A_SANDBOX = {
    # the role of a submission may not log in to another database, so that this app is never well
    "wrong_asks_another_database": {
        "test_it_starts_and_answers",
        "test_health_tells_when_the_database_is_gone",
        "test_every_connection_says_goodbye",
    },
}
"""Checks that a variant fails in a sandbox only."""
NAMES = ("Ada", "Bjørn", "Chidi", "Dũng", "Eïleen", "Fatma", "Grzegorz", "Hadiza", "Ítalo", "Jürgen", "Kaho", "Łucja")


@dataclass(frozen=True, slots=True)
class Work:
    """One lesson as a learner submits it; `passes` are the checks that it must pass."""

    lesson: Lesson
    about: str
    folder: Path
    passes: frozenset[str]


def works(lessons: list[Lesson], scratch: Path) -> Iterator[Work]:
    """All solutions and variants, whose results the authors declare, and an app of each broken and hostile kind."""
    for lesson in lessons:
        names = frozenset(entry.name for entry in lesson.checks)
        for case in cases(lesson, scratch):
            case.write()
            fails = case.fails | IN_A_SANDBOX.get(case.label, set())
            yield Work(lesson, case.label, case.folder, names - fails)
        if lesson.migrations:  # most of its checks need no app, so that a broken app fails only some of them
            continue
        for about, change in [*BROKEN.items(), *((about, _in_front(code)) for about, code in HOSTILE.items())]:
            folder = scratch / lesson.name / about.replace(" ", "_")
            base = lesson.solution if about in BROKEN else lesson.folder
            shutil.copytree(base, folder, ignore=shutil.ignore_patterns("__pycache__"))
            main = folder / "app" / "main.py"
            main.write_text(change(main.read_text(encoding="utf-8")), encoding="utf-8")
            yield Work(lesson, about, folder, frozenset())


def _in_front(code: str) -> Callable[[str], str]:
    return lambda main: code + main


def write(folder: Path, learners: int, lessons: list[Lesson], seed: int, each: int = 1) -> Expected:
    """Writes the submissions of a class, `each` with so many lessons, to folder/submissions; returns what must pass."""
    dice = random.Random(seed)
    expected: Expected = {}
    submissions = folder / "submissions"
    submissions.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        pool = list(works(lessons, Path(scratch)))
        dice.shuffle(pool)
        for number in range(learners):
            name = f"{NAMES[number % len(NAMES)]} {number:03}"
            chosen: dict[int, Work] = {}
            for work in (pool[(number * each + turn) % len(pool)] for turn in range(each)):
                chosen.setdefault(work.lesson.number, work)
            fork = Path(scratch) / "forks" / name
            for work in chosen.values():
                _copy(work, fork, name)
            FORMS[number % len(FORMS)](fork, submissions / name)
            expected[name] = {str(n): sorted(work.passes) for n, work in sorted(chosen.items())}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False), encoding="utf-8")
    return expected


def _copy(work: Work, fork: Path, name: str) -> None:
    to = fork / "lessons" / work.lesson.name
    shutil.copytree(work.folder, to)
    (to / "NOTES.txt").write_text(f"{name}: {work.about}\n", encoding="utf-8")


def _fork(fork: Path, to: Path) -> None:
    """A whole fork, with a grader of its own that says yes to everything."""
    shutil.copytree(fork, to)
    (to / "checks" / "kit").mkdir(parents=True)
    (to / "checks" / "kit" / "plugin.py").write_text("raise SystemExit(0)\n")
    (to / "conftest.py").write_text("import os\nos._exit(0)\n")
    (to / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '--collect-only'\n")


def _only_lessons(fork: Path, to: Path) -> None:
    shutil.copytree(fork / "lessons", to / "lessons")


def _zip(fork: Path, to: Path) -> None:
    """As a forge packs a branch: everything below one folder."""
    with zipfile.ZipFile(f"{to}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(fork.rglob("*")):
            archive.write(path, Path("bookshop-main") / path.relative_to(fork))


def _bundle(fork: Path, to: Path) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-q", "-m", "my work"]):
        subprocess.run(["git", *command], cwd=fork, check=True)
    subprocess.run(["git", "bundle", "create", "-q", f"{to}.bundle", "HEAD", "main"], cwd=fork, check=True)


FORMS = (_fork, _only_lessons, _zip, _bundle)


def main() -> None:
    folder, learners, lessons, seed = [*sys.argv[1:], *("", "60", "0-3", "1")[len(sys.argv) - 1 :]]
    from checks.kit.cli.grade import chosen

    known = [find_lesson(number) for number in chosen(lessons)]
    expected = write(Path(folder), int(learners), known, int(seed))
    print(f"{len(expected)} submissions in {folder}/submissions; what they must get: {folder}/expected.json")  # noqa: T201


if __name__ == "__main__":
    main()
