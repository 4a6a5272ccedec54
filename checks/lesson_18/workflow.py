"""Reads deploy/ci.yaml: which commands a workflow runs, and whether it fails where they do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from checks.kit.report import expect
from checks.lesson_18.dockerfile import words_of
from checks.lesson_18.specifications import violation

BECAUSE = "The mistake is found by the deploy."
LAUNCHERS = (("uv", "run"), ("poetry", "run"), ("pdm", "run"), ("hatch", "run"), ("python", "-m"), ("python3", "-m"))
SEPARATORS = ("&&", "||", ";", "|", "&")
MERELY_SHOWN = ("--exit-zero", "--show-fixes", "--help", "--version")

WANTED = {
    "a linter": (("ruff", "check"), ("flake8",), ("pylint",)),
    "a type checker": (("mypy",), ("pyright",), ("basedpyright",), ("ty", "check")),
    "`alembic upgrade head`": (("alembic", "upgrade", "head"),),
    "`alembic check`": (("alembic", "check"),),
}


@dataclass(frozen=True)
class Step:
    """A command of a workflow. `ignored` says why the job goes on when it fails; empty if the job fails, too."""

    job: str
    words: tuple[str, ...]
    ignored: str
    has_database: bool


def read(path: Path) -> list[Step]:
    """The commands of a workflow that runs for each pull request, in their order."""
    expect(path.is_file(), "There is no deploy/ci.yaml.", because=BECAUSE, section="What CI has to notice")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        data = None
        expect(False, f"deploy/ci.yaml is no YAML: {error}.", because=BECAUSE, section="What CI has to notice")
    # in YAML 1.1 the word `on` is a boolean
    data = {("on" if key is True else key): value for key, value in data.items()} if isinstance(data, dict) else data
    wrong = violation("github-workflows", data)
    expect(
        not wrong,
        f"deploy/ci.yaml does not follow the specification of workflows: {wrong}.",
        because=BECAUSE,
        section="What CI has to notice",
    )
    events = data["on"]
    events = [events] if isinstance(events, str) else events
    expect(
        "pull_request" in events,
        f"deploy/ci.yaml runs for {', '.join(events)}, and for no pull request.",
        because="A mistake is found when it is merged already.",
        section="What CI has to notice",
    )
    filtered = (events["pull_request"] or {}) if isinstance(events, dict) else {}
    branches = filtered.get("branches", ["**"])
    expect(
        {*filtered} <= {"branches"} and bool({"main", "*", "**"} & {*branches}),
        f"deploy/ci.yaml runs only for pull requests with {filtered}.",
        because="A mistake in another one is found by the deploy.",
        section="What CI has to notice",
    )
    return [step for name, job in data["jobs"].items() for step in _steps(name, job)]


def _steps(name: str, job: dict[str, Any]) -> list[Step]:
    services = [str(one) for one in (job.get("services") or {}).values()]
    steps = job.get("steps") or []
    started = [f"{one.get('uses', '')} {one.get('run', '')}" for one in steps]
    has_database = any("postgres" in text or "docker compose" in text for text in [*services, *started])
    found = []
    for step in steps:
        shell = str(step.get("shell") or _default_shell(job))
        for words, after in _commands(str(step.get("run", ""))):
            found.append(Step(name, words, _ignored(job, step, words, after, shell), has_database))
    return found


def _default_shell(job: dict[str, Any]) -> str:
    return str(((job.get("defaults") or {}).get("run") or {}).get("shell") or "")


def _commands(text: str) -> list[tuple[tuple[str, ...], str]]:
    """The commands of a step, each with the operator after it."""
    found: list[tuple[tuple[str, ...], str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        command: list[str] = []
        for word in [*words_of(line), ";"]:
            if word not in SEPARATORS:
                command.append(word)
            elif command:
                found.append((_plain(command), word))
                command = []
    return found


def _plain(command: list[str]) -> tuple[str, ...]:
    """A command without variables before it, and without what merely starts it."""
    words = [*command]
    while words and "=" in words[0] and not words[0].startswith("-"):
        words.pop(0)
    for launcher in LAUNCHERS:
        if tuple(words[:2]) == launcher:
            words = words[2:]
            while words and words[0].startswith("--"):
                words.pop(0)
    return tuple(words)


def _ignored(job: dict[str, Any], step: dict[str, Any], words: tuple[str, ...], after: str, shell: str) -> str:
    for what, where in (("job", job), ("step", step)):
        if where.get("continue-on-error"):
            return f"its {what} has continue-on-error"
        condition = str(where.get("if", ""))
        if condition.strip("${} ").lower() == "false":
            return f"its {what} is never run"
        if "event_name" in condition and "pull_request" not in condition:
            return f"its {what} has the condition {condition}"
    if after == "||":
        return "`||` comes after it"
    if after == "|" and shell != "bash":
        return "a pipe comes after it, and the exit code is that of the last command"
    if "set +e" in str(step.get("run", "")):
        return "`set +e` comes before it"
    shown = [word for word in words if word in MERELY_SHOWN]
    return f"it has {shown[0]}" if shown else ""


def runs(step: Step, commands: tuple[tuple[str, ...], ...]) -> bool:
    """Whether a step is one of these commands, whatever options it has."""
    for command in commands:
        program, *rest = command
        words = [word for word in step.words[1:] if not word.startswith("-")]
        words = words[-len(rest) :] if program == "alembic" else words
        if step.words[:1] == (program,) and all(word in words for word in rest):
            return True
    return False


def checked_in_order(steps: list[Step]) -> bool:
    """Whether some job has a database, migrates it and then compares the models with it."""
    for job in {step.job for step in steps}:
        mine = [step for step in steps if step.job == job and not step.ignored]
        upgraded = [n for n, step in enumerate(mine) if runs(step, WANTED["`alembic upgrade head`"])]
        checked = [n for n, step in enumerate(mine) if runs(step, WANTED["`alembic check`"])]
        if upgraded and checked and upgraded[0] < checked[-1] and mine[0].has_database:
            return True
    return False
