"""`workbook dev verify`: what is to do on paper, then the cases as they end, then what was wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from checks.kit.authoring.affected import affected
from checks.kit.authoring.cases import Case
from checks.kit.authoring.paper import can_be_graded, to_do
from checks.kit.authoring.verify import Outcome, Progress, keep_logs, verify
from checks.kit.lessons.lesson import Lesson, all_lessons
from checks.kit.lessons.paths import display_path
from checks.kit.lessons.words import plural
from checks.kit.report import terminal


def run(lessons: list[Lesson], jobs: int, only: str, *, everything: bool, paper: bool, quick: bool) -> int:
    """The exit code: 0 if every promise holds. Without lessons, those that a change can have affected."""
    out = terminal.console()
    chosen = lessons or all_lessons()
    holds, why = _choice(lessons, only, everything)
    lacking = {lesson.number: lines for lesson in chosen if (lines := to_do(lesson))}
    for number, lines in lacking.items():
        out.print(f"Lesson {number:02}, still to do:", style="bold red")
        for line in lines:
            out.print(f"  ✗ {line}", soft_wrap=True)
    count = sum(map(len, lacking.values()))
    if paper:
        out.print("Nothing is left to do on paper." if not count else f"{count} to do.", style="bold")
        return 1 if count else 0
    out.print(why, style="dim", soft_wrap=True)
    graded = [lesson for lesson in chosen if can_be_graded(lesson)]
    outcomes, seconds = _grade(graded, jobs, holds, quick=quick)
    if only and not outcomes:  # a misspelled name must not look like a promise that holds
        out.print(f"Nothing ran: no app has {only!r} in its name. The names: workbook dev matrix {chosen[0].number}")
        return 1
    return _summary(outcomes, seconds, count)


def _choice(lessons: list[Lesson], only: str, everything: bool) -> tuple[Callable[[Case], bool], str]:
    """Which cases are run, and the line that says so."""
    wanted = only.split(",")
    names = f", only cases with {' or '.join(map(repr, wanted))} in their name" if only else ""

    def named(case: Case) -> bool:
        return any(name in case.label for name in wanted)

    if lessons:
        numbers = ", ".join(str(lesson.number) for lesson in lessons)
        return named, f"Runs lesson {numbers}{names}."
    if everything:
        return named, f"Runs everything{names}."
    changed = affected(all_lessons())
    more = "" if changed.everything else " Everything: --all"
    return lambda case: named(case) and changed.holds(case), f"Runs {changed.why}{names}.{more}"


def _grade(
    lessons: list[Lesson], jobs: int, holds: Callable[[Case], bool], *, quick: bool
) -> tuple[list[Outcome], float]:
    """Prints each case as it ends; returns all of them, and the seconds that they took together."""
    out = terminal.console()

    def tell(outcome: Outcome, progress: Progress) -> None:
        case = outcome.case
        symbol, style = ("✗", "bold red") if outcome.wrong else ("✓", "green")
        left = f"  about {_duration(progress.seconds_left)} left" if progress.seconds_left else ""
        count = f"{progress.done:>3}/{progress.total}"
        out.print(
            f"{symbol} {count}  {case.lesson.name}  {case.label}  {outcome.seconds:.1f} s{left}",
            style=style,
            soft_wrap=True,
        )
        for text in outcome.wrong:
            out.print(f"           {text}", style="red")

    began = time.perf_counter()
    outcomes = verify(lessons, jobs or os.cpu_count() or 1, tell, holds, quick=quick)
    return outcomes, time.perf_counter() - began


def _summary(outcomes: list[Outcome], seconds: float, to_do_count: int) -> int:
    out = terminal.console()
    broken = sum(bool(outcome.wrong) for outcome in outcomes)
    if outcomes:
        average = seconds / len(outcomes)
        graded = plural(len(outcomes), "app")
        out.print(f"\n{graded} graded in {seconds:.1f} s, {average:.2f} s each on average.", style="bold")
    if logs := keep_logs(outcomes):
        where = f"What each grader printed: {display_path(logs)}"
        out.print(plural(broken, "promise") + f" broken. {where}", style="bold red")
    if to_do_count:
        out.print(f"{to_do_count} still to do, see above.", style="bold red")
    elif outcomes and not broken:
        out.print("Every promise holds.", style="bold green")
    return 1 if broken or to_do_count else 0


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
