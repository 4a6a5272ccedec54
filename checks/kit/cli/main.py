"""`workbook`: one small function for each command; what they do lives in the modules beside this one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from checks.kit.cli import dev
from checks.kit.lessons.errors import WorkbookError, explained
from checks.kit.lessons.lesson import Lesson, find_lesson

app = typer.Typer(
    help="The Bookshop workbook: fix an inherited service, lesson by lesson, graded on a live PostgreSQL.",
    epilog="Start with lessons/lesson_00/README.md, then: pytest checks/lesson_00",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=False,
)

Number = Annotated[str, typer.Argument(help="The lesson's number, such as 1.", metavar="LESSON", show_default=False)]
NextNumber = Annotated[
    str | None, typer.Argument(help="The lesson; the next one if left out.", metavar="LESSON", show_default=False)
]
Target = Annotated[str, typer.Option(help="Whose code: lessons (yours), solutions, or a folder.")]


def main() -> None:
    """Runs the command line; every error that we foresee ends here as one sentence."""
    from checks.kit.postgres import PostgresUnavailable
    from checks.kit.postgres.libpq_environment import drop_libpq_variables
    from checks.kit.report.encoding import accept_any_text
    from checks.kit.service.app import AppDidNotStart
    from checks.kit.service.end_signals import end_as_ctrl_c_does

    accept_any_text()
    end_as_ctrl_c_does()
    drop_libpq_variables()
    try:
        app()
    except (WorkbookError, PostgresUnavailable) as error:
        sys.exit(f"workbook: {error}")
    except AppDidNotStart as error:
        log = error.log.strip("\n")
        sys.exit(f"{log}\n\nworkbook: {error} Its log is above." if log else f"workbook: {error} It printed nothing.")
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if not (sentence := explained(error)):
            raise
        sys.exit(f"workbook: {sentence}")


@app.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """Without a command: the map of the workbook."""
    if context.invoked_subcommand is None:
        from checks.kit.cli import overview as module

        module.show()


@app.command(epilog="Examples: workbook watch; workbook watch 3 --view; workbook watch 3 | cat")
def watch(
    number: NextNumber = None,
    view: Annotated[bool, typer.Option("--view", help="Show it on a page in the browser as well.")] = False,
) -> None:
    """Grades a lesson again on every save.

    Checks that failed before run first. Keys give hints and more.
    """
    from checks.kit.cli import watch as module

    options = module.Options(page=view, browser=view)
    module.watch(find_lesson(number) if number is not None else None, options)


@app.command(epilog="Examples: workbook view; workbook view 3; workbook view 3 --no-browser")
def view(
    number: NextNumber = None,
    browser: Annotated[bool, typer.Option(help="Open the page; otherwise its address is printed.")] = True,
) -> None:
    """Grades a lesson again on every save, on a page in the browser.

    Ctrl-C ends it.
    """
    from checks.kit.cli import watch as module

    options = module.Options(page=True, browser=browser, brief=True)
    module.watch(find_lesson(number) if number is not None else None, options)


@app.command(epilog="Example: workbook skip 1")
def skip(number: Number) -> None:
    """The fast track: counts a lesson as done if your code passes it."""
    from checks.kit.cli import skip as module

    raise typer.Exit(module.skip(find_lesson(number)))


@app.command(epilog="Examples: workbook serve 1; workbook serve 1 --port 8001; workbook serve 1 --debug")
def serve(
    number: Number,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The TCP port of the app on this machine.")] = 8000,
    debug: Annotated[
        bool, typer.Option("--debug", help="Wait at each start until an editor's debugger has attached.")
    ] = False,
    tracebacks: Annotated[
        bool, typer.Option("--tracebacks", help="Show whole tracebacks, not only your own lines.")
    ] = False,
    target: Target = "lessons",
) -> None:
    """Runs a lesson's app, and shows what crosses the wire.

    The shop has a few books.
    """
    from checks.kit.cli import serve as module

    lesson = find_lesson(number)
    module.serve(lesson, _folder(target, lesson), module.Options(port, debug, tracebacks))


@app.command(epilog="Examples: workbook hint 1; workbook hint 1 test_the_dashboard_is_right; workbook hint 1 --again")
def hint(
    number: Number,
    check: Annotated[
        str, typer.Argument(help="The check's name, or a part of it; the first red one if left out.")
    ] = "",
    again: Annotated[bool, typer.Option(help="Show the hints that you had, without a new one.")] = False,
) -> None:
    """Gives a hint about the first red check, and more each time."""
    from checks.kit.report import hints

    hints.show(find_lesson(number), check, again)


@app.command(epilog="Example: workbook reset 1")
def reset(
    number: Number,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Puts a lesson back to how it was handed out.

    What you wrote is kept as a copy.
    """
    from checks.kit.cli import files
    from checks.kit.lessons.original import lesson_to_restore

    files.reset(lesson_to_restore(number), yes)


@app.command(epilog="Examples: workbook diff 1; workbook diff 1 --mine")
def diff(
    number: Number,
    peek: Annotated[bool, typer.Option(help="Show the solution although the lesson does not pass yet.")] = False,
    mine: Annotated[
        bool, typer.Option("--mine", help="Show what you changed since the lesson was handed out.")
    ] = False,
) -> None:
    """Shows how your code differs from the solution.

    It does so once the lesson passes; with --peek, before that.
    """
    from checks.kit.cli import files

    if mine:
        files.diff_mine(find_lesson(number))
    else:
        files.diff(find_lesson(number), peek)


@app.command(epilog='Examples: workbook submit; workbook submit 3 4 --name "Anna Right" --out ~/Desktop')
def submit(
    numbers: Annotated[
        list[str] | None,
        typer.Argument(help="Lessons; those that you have changed if left out.", metavar="LESSON", show_default=False),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Your name, as your instructor knows it; Git's user.name if left out.")
    ] = "",
    out: Annotated[Path, typer.Option(help="The folder for the file.")] = Path(),
) -> None:
    """Packs your lessons into one .zip file for your instructor.

    It then checks that the file is whole.
    """
    from checks.kit.cli import submit as module

    module.submit(numbers or [], name, out.expanduser())


@app.command(epilog="Example: workbook cost 3")
def cost(number: Number, target: Target = "lessons") -> None:
    """Shows what a lesson's requests cost on the wire.

    It compares the lesson as it was handed out with the lesson as it is now.
    """
    from checks.kit.cli import cost as module

    module.cost(find_lesson(number), _folder(target, find_lesson(number)))


@app.command(epilog="Example: workbook psql 1")
def psql(number: Number) -> None:
    """Opens psql on a lesson's database.

    That is the database of `workbook serve`, if that runs, else one with a few books.
    """
    from checks.kit.cli import psql as module

    raise typer.Exit(module.psql(find_lesson(number)))


@app.command(
    name="run",
    epilog="Examples: workbook run 5 alembic upgrade head; workbook run 5 bash",
    context_settings={"ignore_unknown_options": True},
)
def run_in(
    number: Number,
    command: Annotated[list[str], typer.Argument(help="The command and its arguments.", metavar="COMMAND...")],
    target: Target = "lessons",
) -> None:
    """Runs a command in a lesson's folder, with a fresh database.

    The URL of the database is in DATABASE_URL.
    """
    from checks.kit.cli import run_in as module

    lesson = find_lesson(number)
    raise typer.Exit(module.run_in(lesson, _folder(target, lesson), command))


@app.command(epilog="Example: workbook doctor")
def doctor() -> None:
    """Looks at this machine: what is there, and what is missing.

    For what is missing it names the command that installs it.
    """
    from checks.kit.cli import doctor as module

    raise typer.Exit(module.doctor())


@app.command(
    epilog="Examples: workbook grade submissions; workbook grade submissions --lessons 0-3,5 --jobs 4; "
    "workbook grade jane.zip team.bundle ~/forks/sam --out results; "
    "workbook grade submissions --roster class.csv --due 2026-11-30 --late 10 --late-limit 50; "
    "workbook grade ~/shared/room --lessons 3 --watch"
)
def grade(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of submissions, or single submissions: a folder, a .zip, a .tar.gz or a git bundle.",
            metavar="SUBMISSIONS...",
        ),
    ],
    lessons: Annotated[str, typer.Option(help="Which lessons, such as 0-3,5; all if left out.")] = "",
    jobs: Annotated[int, typer.Option(min=0, help="How many lessons are graded at once; 0 for one per core.")] = 0,
    out: Annotated[
        Path, typer.Option(help="The folder for the results. A second run with the same folder continues the first.")
    ] = Path("grades"),
    limit: Annotated[int, typer.Option(min=10, help="Seconds for each lesson of a submission.")] = 300,
    again: Annotated[bool, typer.Option("--again", help="Grade everything again, also what has not changed.")] = False,
    one: Annotated[
        bool, typer.Option("--one", help="Take each path as one submission, whatever it holds; for autograders.")
    ] = False,
    scheduler: Annotated[
        str,
        typer.Option(help="Grade on the workers of this Dask scheduler: tcp://10.0.0.5:8786.", metavar="ADDRESS"),
    ] = "",
    roster: Annotated[
        Path | None,
        typer.Option(
            help="A CSV with the class, as Moodle or Canvas exports it: says who is missing, makes a file to import."
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A TOML file that says what lessons and checks are worth in marks.csv.")
    ] = None,
    due: Annotated[
        str, typer.Option(help="When work was due, such as 2026-11-30 or 2026-11-30T18:00.", metavar="TIME")
    ] = "",
    late: Annotated[
        int, typer.Option(min=0, max=100, help="Percent of the points that each day begun after --due costs.")
    ] = 0,
    late_limit: Annotated[
        int, typer.Option(min=0, max=100, help="Percent of the points that being late costs at most.")
    ] = 100,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running: show the class on a page, and grade again what changes.")
    ] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="With --watch, only print the address.")] = False,
) -> None:
    """For instructors: grades the submissions of a class.

    Each is graded in a sandbox. The results are written as pages and tables.

    Exit code 0: all are graded; 1: some have no final grade; 130: interrupted, the same command continues.
    """
    from checks.kit.cli import grade as module
    from checks.kit.cli.marking_rules import marking_rules
    from checks.kit.report import terminal

    console = terminal.console()
    grading = module.prepare(
        console,
        paths,
        lessons,
        out,
        marking_rules(roster, weights, due, late, late_limit),
        workers=jobs,
        limit=limit,
        scheduler=scheduler,
        one_each=one,
    )
    if watch:
        from checks.kit.cli import grade_watch

        raise typer.Exit(grade_watch.watch(console, grading, again=again, browser=not no_browser))
    raise typer.Exit(module.grade(console, grading, again=again))


@app.command(name="class", epilog="Examples: workbook class ~/bookshop-class; workbook class ~/day-one --lessons 0-3")
def class_copy(
    folder: Annotated[Path, typer.Argument(help="Where to write the copy; it must not exist yet.", metavar="FOLDER")],
    lessons: Annotated[str, typer.Option(help="Which lessons, such as 0-3,5; all if left out.")] = "",
) -> None:
    """For instructors: writes a copy of the workbook for learners.

    It has no solutions and no other answers.
    """
    from checks.kit.cli import class_copy as module
    from checks.kit.cli.grade import chosen

    module.make(folder.expanduser(), [find_lesson(number) for number in chosen(lessons)])


@app.command(epilog="Examples: workbook key 3; workbook key 3 > lesson_03_key.md")
def key(number: Number) -> None:
    """For instructors: prints a lesson's answer key, as Markdown.

    The key says what people write, and which check notices it.
    """
    from checks.kit.lessons.answer_key import answer_key

    typer.echo(answer_key(find_lesson(number)), nl=False)


app.add_typer(dev.app, name="dev")


def _folder(target: str, lesson: Lesson) -> Path:
    from checks.kit.lessons.targets import find_target, lesson_folder

    return lesson_folder(find_target(target), lesson)
