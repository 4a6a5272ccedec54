"""`workbook dev notebook`: shows the progress, then the cells whose outputs changed."""

from __future__ import annotations

from checks.kit.authoring import execute_notebook
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import display_path
from checks.kit.report import terminal


def notebook(lesson: Lesson, check: bool, fresh: bool) -> int:
    """The exit code: 0, or 1 if `check` found that the committed outputs are not those of a new run.

    `fresh` takes all new outputs, also where only measured times differ.
    """
    out = terminal.console()
    before = execute_notebook.read(lesson)
    after = execute_notebook.execute(lesson, lambda cell, total: out.print(f"cell {cell:>2}/{total}"))
    changed = [] if fresh else execute_notebook.keep_known_outputs(before, after)
    name = display_path(lesson.notebook)
    if check:
        if changed:
            out.print(f"{name}: a new run gives other outputs in {', '.join(changed)}.", style="bold red")
            out.print(f"Look at them with: uv run workbook dev notebook {lesson.number}; git diff {name}")
            return 1
        out.print(f"{name}: a new run gives the same outputs.", style="bold green")
        return 0
    execute_notebook.write(lesson, after)
    what = "all outputs are new" if fresh else f"new outputs in {', '.join(changed)}" if changed else "nothing changed"
    out.print(f"{name}: {what}.", style="bold green")
    return 0
