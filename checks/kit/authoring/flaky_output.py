"""`workbook dev flaky`: shows the progress, then the checks whose verdicts differ."""

from __future__ import annotations

from checks.kit.authoring import flaky
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import display_path
from checks.kit.lessons.targets import find_target, lesson_folder
from checks.kit.report import terminal


def find_flaky(lesson: Lesson, times: int, target: str, only: str, load: bool) -> int:
    """The exit code: 0 if every check had the same verdict in each run, 1 if one had not, 130 if interrupted."""
    out = terminal.console()
    folder = lesson_folder(find_target(target), lesson)
    out.print(f"Grading {display_path(folder)} {times} times{', with a busy loop on every core' if load else ''}.")
    histories: dict[str, flaky.History] = {}
    runs = 0

    def on_run(number: int, seconds: float) -> None:
        nonlocal runs
        runs = number
        differing = sum(history.differs for history in histories.values())
        left = seconds / number * (times - number)
        out.print(
            f"run {number:>3}/{times}  {differing} checks differ  {seconds:.0f} s, {left:.0f} s left",
            style="yellow" if differing else "",
        )

    try:
        flaky.grade_repeatedly(lesson, folder, times, histories, on_run, only=only, load=load)
    except KeyboardInterrupt:
        out.print(f"\nInterrupted after {runs} of {times} runs.", style="bold yellow")
        show(histories, runs)
        return 130
    return show(histories, runs)


def show(histories: dict[str, flaky.History], runs: int) -> int:
    """Prints what differs; 1 if anything does. A check that always fails is named, but is no difference."""
    out = terminal.console()
    differing = [history for history in histories.values() if history.differs]
    failing = [history for history in histories.values() if not history.differs and "passed" not in history.outcomes]
    for history in [*differing, *failing]:
        counts = ", ".join(f"{count} × {outcome}" for outcome, count in history.outcomes.most_common())
        out.print(f"\n{'✗' if history.differs else '·'} {history.name}: {counts}", style="bold red")
        for text, count in history.texts.most_common():
            out.print(f"    {count} × {text}", style="red")
    if differing:
        out.print(f"\n{len(differing)} of {len(histories)} checks had more than one verdict.", style="bold red")
    elif histories:
        out.print(f"\n{len(histories)} checks had the same verdict in each of {runs} runs.", style="bold green")
    return 1 if differing else 0
