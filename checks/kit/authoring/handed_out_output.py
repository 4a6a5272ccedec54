"""`workbook dev handed-out`: which lessons' files are written down as they are handed out, and which were not."""

from __future__ import annotations

from checks.kit.lessons.lesson import Lesson, all_lessons
from checks.kit.lessons.original import handed_out_path, is_current, record
from checks.kit.lessons.paths import display_path
from checks.kit.report import terminal


def run(lessons: list[Lesson], check: bool) -> int:
    """The exit code: 0 unless one is only compared and not current. Without lessons, all of them."""
    out = terminal.console()
    stale = [lesson for lesson in lessons or all_lessons() if not is_current(lesson)]
    for lesson in stale:
        path = display_path(handed_out_path(lesson))
        if check:
            out.print(f"✗ {path} does not hold {display_path(lesson.folder)} as it is", soft_wrap=True)
        else:
            record(lesson)
            out.print(f"wrote {path}", soft_wrap=True)
    if not stale:
        out.print("Every lesson is written down as it is handed out.", style="bold green")
    elif check:
        numbers = " ".join(str(lesson.number) for lesson in stale)
        out.print(f"To write it down: uv run workbook dev handed-out {numbers}", style="bold red")
    return 1 if stale and check else 0
