"""`workbook submit`: one file with a learner's lessons, to be given to the instructor."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson, all_lessons, find_lesson
from checks.kit.lessons.paths import ROOT, display_path
from checks.kit.lessons.progress import Progress
from checks.kit.report import terminal
from checks.kit.submissions.jobs import is_untouched
from checks.kit.submissions.model import Files
from checks.kit.submissions.pack import broken, pack, read_work


def submit(numbers: Sequence[str], learner: str, folder: Path) -> None:
    """Packs the lessons of these numbers; without any, all that the learner has changed."""
    learner = " ".join((learner or _name_in_git()).split())
    if not learner:
        raise WorkbookError('Your name is not known: Git has no user.name. Type: workbook submit --name "Your Name"')
    chosen = [find_lesson(number) for number in numbers]
    work = read_work(chosen or all_lessons())
    lessons = dict(work.lessons)
    if not chosen:
        lessons = {number: files for number, files in lessons.items() if not is_untouched(number, files)}
    if missing := [lesson for lesson in chosen if lesson.number not in lessons]:
        raise WorkbookError(f"There is nothing to pack in {display_path(missing[0].folder)}. {' '.join(work.notes)}")
    if not lessons:
        raise WorkbookError("You have changed no lesson yet. To submit one as it was handed out: workbook submit 0")
    out = terminal.console()
    path = pack(lessons, learner, folder, datetime.now().astimezone())
    progress = Progress()
    for number, files in lessons.items():
        _show(find_lesson(number), files, progress)
    for note in work.notes:
        out.print(f"  ! {note}", style="yellow", highlight=False)
    out.print(
        f"\n{display_path(path, Path.cwd())} has the work of {learner}: "
        f"{len(lessons)} of {len(all_lessons())} lessons, {path.stat().st_size / 1000:.0f} kB.",
        style="bold",
        highlight=False,
        soft_wrap=True,
    )
    out.print("It was read again as the grader will read it, and is whole. Next: give this file to your instructor.")


def _show(lesson: Lesson, files: Files, progress: Progress) -> None:
    out = terminal.console()
    outcomes = progress.outcomes(lesson.name)
    passed = sum(outcomes.get(entry.name) == "passed" for entry in lesson.checks)
    if is_untouched(lesson.number, files):
        run = "as it was handed out, so it counts as not submitted"
    elif outcomes:
        run = f"{passed} of {len(lesson.checks)} checks passed in your last run of all"
    else:
        run = "you have not run all its checks"
    out.print(f"  {lesson.name}  {len(files):>3} files, {run}", highlight=False)
    for sentence in broken(files):
        out.print(f"    ! {sentence}", style="yellow", highlight=False)


def _name_in_git() -> str:
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", "config", "user.name"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout
