"""Reads deploy/ci.yaml: which commands a workflow runs, and whether it fails where they do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from checks.kit.report import expect
from checks.lesson_18.shelltext import ENDS_AT_FAILURE, commands_of
from checks.lesson_18.specifications import violation

BECAUSE = "A mistake is found only by the deploy."
LAUNCHERS = (("uv", "run"), ("poetry", "run"), ("pdm", "run"), ("hatch", "run"), ("python", "-m"), ("python3", "-m"))
MERELY_SHOWN = ("--exit-zero", "--fix", "--fix-only", "--diff", "--help", "--version", "--sql")
"""Options with which a command does not fail, repairs what it finds, or only prints what it would do."""

ACTIONS = {"ruff": ("ruff", "check"), "pyright": ("pyright",), "mypy": ("mypy",), "flake8": ("flake8",)}
"""What an action runs that has such a word in its name."""

WANTED = {
    "a linter": (("ruff", "check"), ("flake8",), ("pylint",)),
    "a type checker": (("mypy",), ("pyright",), ("basedpyright",), ("ty", "check")),
    "`alembic upgrade head`": (("alembic", "upgrade", "head"),),
    "`alembic check`": (("alembic", "check"),),
}

FOR_EACH = re.compile(
    r"true|always\(\)|success\(\)|!\s*(?:cancelled|failure)\(\)|github\.event_name\s*==\s*'pull_request'"
    r"|github\.event_name\s*!=\s*'(?!pull_request')\w+'|github\.repository(?:_owner)?\s*==\s*'[^']*'"
)
"""Conditions that hold for each pull request, as long as nothing has failed."""


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
    _expect_each_pull_request(data["on"])
    return [step for name in data["jobs"] for step in _steps(name, data)]


def _expect_each_pull_request(events: Any) -> None:
    events = [events] if isinstance(events, str) else events
    expect(
        "pull_request" in events,
        f"deploy/ci.yaml runs for {', '.join(events)}, and not for pull_request.",
        because="A mistake is found only after the merge.",
        section="What CI has to notice",
    )
    filtered = (events["pull_request"] or {}) if isinstance(events, dict) else {}
    branches = filtered.get("branches", ["**"])
    types = filtered.get("types", ["opened", "synchronize"])
    expect(
        {*filtered} <= {"branches", "types"}
        and bool({"main", "*", "**"} & {*branches})
        and {"opened", "synchronize"} <= {*types},
        f"deploy/ci.yaml runs only for pull requests with {filtered}.",
        because="A mistake in any other pull request is found only by the deploy.",
        section="What CI has to notice",
    )


def _steps(name: str, data: dict[str, Any]) -> Iterator[Step]:
    job = data["jobs"][name]
    services = [str(one) for one in (job.get("services") or {}).values()]
    steps = job.get("steps") or []
    started = [f"{one.get('uses', '')} {one.get('run', '')}" for one in steps]
    has_database = any("postgres" in text or "docker compose" in text for text in [*services, *started])
    of_job = _goes_on("job", job) or _waits(job, data["jobs"])
    for step in steps:
        of_step = of_job or _goes_on("step", step)
        action = str(step.get("uses", "")).partition("@")[0]
        for word, command in ACTIONS.items():
            if word in action:
                words = (command[0], *str((step.get("with") or {}).get("args") or " ".join(command[1:])).split())
                yield Step(name, words, of_step or _shown(words), has_database)
        ends_at_failure, whole_pipe = _options(str(step.get("shell") or _default_shell(job) or _default_shell(data)))
        for one in commands_of(str(step.get("run", "")), ends_at_failure=ends_at_failure, whole_pipe=whole_pipe):
            words = _plain(one.words)
            yield Step(name, words, of_step or one.ignored or _shown(words), has_database)


def _default_shell(where: dict[str, Any]) -> str:
    return str(((where.get("defaults") or {}).get("run") or {}).get("shell") or "")


def _options(shell: str) -> tuple[bool, bool]:
    """Whether a shell of GitHub's ends at the first failure, and whether it looks at each command of a pipe."""
    if shell in ("", "sh", "bash"):
        return True, shell == "bash"
    words = shell.split()
    return any(ENDS_AT_FAILURE.fullmatch(word) or word == "errexit" for word in words), "pipefail" in words


def _plain(given: tuple[str, ...]) -> tuple[str, ...]:
    """A command without variables before it, and without what merely starts it."""
    words = [*given]
    while words and "=" in words[0] and not words[0].startswith("-"):
        words.pop(0)
    for launcher in LAUNCHERS:
        if tuple(words[:2]) == launcher:
            words = words[2:]
            while words and words[0].startswith("--"):
                words.pop(0)
    return tuple(words)


def _goes_on(what: str, where: dict[str, Any]) -> str:
    """Why a job or a step does not make the workflow fail for some pull request; empty if it does for each."""
    if where.get("continue-on-error"):
        return f"its {what} has continue-on-error"
    condition = str(where.get("if", "true")).strip().removeprefix("${{").removesuffix("}}").strip()
    either = [[part.strip() for part in all_of.split("&&")] for all_of in condition.split("||")]
    if any(all(FOR_EACH.fullmatch(part) for part in all_of) for all_of in either) or condition == "True":
        return ""
    return f"its {what} has the condition `{condition}`, which does not hold for each pull request"


def _waits(job: dict[str, Any], jobs: dict[str, Any], seen: frozenset[str] = frozenset()) -> str:
    """Why another job keeps this one from being run; empty if none does."""
    needs = job.get("needs") or []
    for name in [needs] if isinstance(needs, str) else needs:
        if name in seen or name not in jobs or "always()" in str(job.get("if", "")):
            continue
        if said := _goes_on("job", {"if": jobs[name].get("if", "true")}) or _waits(jobs[name], jobs, seen | {name}):
            return f"its job waits for {name}, and {said.replace('its job', 'that one', 1)}"
    return ""


def _shown(words: tuple[str, ...]) -> str:
    shown = [word for word in words if word in MERELY_SHOWN]
    return f"it has {shown[0]}" if shown and "--exit-non-zero-on-fix" not in words else ""


def runs(step: Step, commands: tuple[tuple[str, ...], ...]) -> bool:
    """Whether a step is one of these commands, whatever options it has."""
    for command in commands:
        program, *rest = command
        words = [word for word in _without_redirection(step.words[1:]) if not word.startswith("-")]
        words = words[-len(rest) :] if program == "alembic" else words
        if step.words[:1] == (program,) and all(word in words for word in rest):
            return True
    return False


def _without_redirection(words: tuple[str, ...]) -> list[str]:
    """The words before `> file` or `2>&1`."""
    end = next((n for n, word in enumerate(words) if {*word} <= {*"<>&"}), len(words))
    before = [*words[:end]]
    return before[:-1] if end < len(words) and before and before[-1] in ("1", "2") else before


def checked_in_order(steps: list[Step]) -> bool:
    """Whether some job has a database, migrates it and then compares the models with it."""
    for job in {step.job for step in steps}:
        mine = [step for step in steps if step.job == job and not step.ignored]
        upgraded = [n for n, step in enumerate(mine) if runs(step, WANTED["`alembic upgrade head`"])]
        checked = [n for n, step in enumerate(mine) if runs(step, WANTED["`alembic check`"])]
        if upgraded and checked and upgraded[0] < checked[-1] and mine[0].has_database:
            return True
    return False
