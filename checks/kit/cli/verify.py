"""`workbook verify`: shows the cases as they end, then what was wrong."""

from __future__ import annotations

import os
import time

from checks.kit import verify as verification
from checks.kit.catalogue import Lesson
from checks.kit.report import terminal
from checks.kit.targets import shown


def verify(lessons: list[Lesson], jobs: int, only: str) -> int:
    """The exit code: 0 if every promise holds."""
    out = terminal.console()
    on_paper = [fault for lesson in lessons for fault in verification.faults_on_paper(lesson)]
    for fault in on_paper:
        out.print(f"✗ {fault}", style="bold red")

    def tell(outcome: verification.Outcome, done: int, total: int) -> None:
        case = outcome.case
        symbol, style = ("✗", "bold red") if outcome.wrong else ("✓", "green")
        out.print(
            f"{symbol} {done:>3}/{total}  {case.lesson.name}  {case.label}  {outcome.seconds:.1f} s",
            style=style,
        )
        for text in outcome.wrong:
            out.print(f"           {text}", style="red")

    began = time.perf_counter()
    outcomes = verification.verify(lessons, jobs or os.cpu_count() or 1, tell, only)
    seconds = time.perf_counter() - began
    broken = sum(bool(outcome.wrong) for outcome in outcomes) + len(on_paper)
    average = seconds / max(len(outcomes), 1)
    out.print(f"\n{len(outcomes)} apps graded in {seconds:.1f} s, {average:.2f} s each on average.", style="bold")
    if logs := verification.keep_logs(outcomes):
        out.print(f"{broken} promises broken. What each grader printed: {shown(logs)}", style="bold red")
    elif broken:
        out.print(f"{broken} promises broken.", style="bold red")
    else:
        out.print("Every promise holds.", style="bold green")
    return 1 if broken else 0
