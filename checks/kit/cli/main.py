"""`workbook`: one small function for each command; what they do lives in the modules beside this one."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from checks.kit import catalogue
from checks.kit.catalogue import CatalogueError, Lesson

app = typer.Typer(
    help="The Bookshop workbook: mend an inherited service, lesson by lesson, graded on a live PostgreSQL.",
    epilog="Start with lessons/lesson_00/README.md, then: pytest checks/lesson_00",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=False,
)

Number = Annotated[int, typer.Argument(help="The lesson's number, such as 1.", metavar="LESSON", show_default=False)]
Target = Annotated[str, typer.Option(help="Whose code: lessons (yours), solutions, or a folder.")]


def main() -> None:
    """Runs the command line; every error that we foresee ends here as one sentence."""
    from checks.kit.postgres import PostgresUnavailable
    from checks.kit.service import AppDidNotStart

    try:
        app()
    except (CatalogueError, PostgresUnavailable) as error:
        sys.exit(f"workbook: {error}")
    except AppDidNotStart as error:
        sys.exit(f"{error.log.rstrip()}\n\nworkbook: {error} Its log is above.")
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(f"workbook: the disk is full ({error.filename or 'while writing'}). Free some space and try again.")


@app.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """Without a command: the map of the workbook."""
    if context.invoked_subcommand is None:
        from checks.kit.cli import overview as module

        module.show()


@app.command(epilog="Examples: workbook watch; workbook watch 3; workbook watch 3 | cat")
def watch(
    number: Annotated[
        int | None, typer.Argument(help="The lesson; the next one if left out.", metavar="LESSON", show_default=False)
    ] = None,
) -> None:
    """Grades a lesson again on every save, what failed last first; keys give hints and more."""
    from checks.kit.cli import watch as module

    module.watch(catalogue.lesson(number) if number is not None else None)


@app.command(epilog="Example: workbook skip 1")
def skip(number: Number) -> None:
    """The fast track: a lesson whose checks your code passes straight away counts as done."""
    from checks.kit.cli import skip as module

    raise typer.Exit(module.skip(catalogue.lesson(number)))


@app.command(epilog="Example: workbook serve 1 --port 8001")
def serve(
    number: Number,
    port: Annotated[int, typer.Option(help="The TCP port of the app on this machine.")] = 8000,
    target: Target = "lessons",
) -> None:
    """Runs a lesson's app with a few books in the shop, and shows what crosses the wire."""
    from checks.kit.cli import serve as module

    module.serve(catalogue.lesson(number), _folder(target, catalogue.lesson(number)), port)


@app.command(epilog="Examples: workbook hint 1; workbook hint 1 test_the_dashboard_is_right; workbook hint 1 --again")
def hint(
    number: Number,
    check: Annotated[
        str, typer.Argument(help="The check's name, or a part of it; the first red one if left out.")
    ] = "",
    again: Annotated[bool, typer.Option(help="Show the hints that you had, without a new one.")] = False,
) -> None:
    """Says a little about the first red check, and a little more each time."""
    from checks.kit.cli import hints

    hints.show(catalogue.lesson(number), check, again)


@app.command(epilog="Example: workbook reset 1")
def reset(
    number: Number,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Puts a lesson back to how it was handed out; what you wrote is kept as a copy."""
    from checks.kit.cli import files

    files.reset(catalogue.lesson(number), yes)


@app.command(epilog="Example: workbook diff 1")
def diff(
    number: Number,
    peek: Annotated[bool, typer.Option(help="Show the solution although the lesson does not pass yet.")] = False,
) -> None:
    """Shows how your code differs from the solution, once the lesson passes."""
    from checks.kit.cli import files

    files.diff(catalogue.lesson(number), peek)


@app.command(epilog="Example: workbook cost 3")
def cost(number: Number, target: Target = "lessons") -> None:
    """What a lesson's requests cost on the wire: as it was handed out, and as it is now."""
    from checks.kit.cli import cost as module

    module.cost(catalogue.lesson(number), _folder(target, catalogue.lesson(number)))


@app.command(epilog="Example: workbook psql 1")
def psql(number: Number) -> None:
    """Opens psql on a database with the lesson's tables and a few books."""
    from checks.kit.cli import psql as module

    module.psql(catalogue.lesson(number))


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
    """Runs a command in a lesson's folder, with a fresh database in DATABASE_URL."""
    from checks.kit.cli import run_in as module

    lesson = catalogue.lesson(number)
    raise typer.Exit(module.run_in(lesson, _folder(target, lesson), command))


@app.command(epilog="Example: workbook doctor")
def doctor() -> None:
    """Looks at this machine: what is there, what is missing, and the command that mends it."""
    from checks.kit.cli import doctor as module

    raise typer.Exit(module.doctor())


@app.command(epilog="Examples: workbook verify; workbook verify 0 1 --jobs 4; workbook verify 1 --only wrong_")
def verify(
    numbers: Annotated[list[int] | None, typer.Argument(help="Lessons; all if left out.", metavar="LESSON...")] = None,
    jobs: Annotated[int, typer.Option(help="How many apps are graded at once; 0: as many as there are cores.")] = 0,
    only: Annotated[str, typer.Option(help="Only cases whose name holds this, such as `solution` or `wrong_`.")] = "",
) -> None:
    """For authors: holds lessons, solutions and variants to what lesson.toml promises."""
    from checks.kit.cli import verify as module

    chosen = [catalogue.lesson(number) for number in numbers] if numbers else catalogue.lessons()
    raise typer.Exit(module.verify(chosen, jobs, only))


@app.command(
    epilog="Examples: workbook grade hand-ins; workbook grade hand-ins --lessons 0-3,5 --jobs 4; "
    "workbook grade jane.zip team.bundle ~/forks/sam --out results"
)
def grade(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Folders of hand-ins, or single ones: a folder, zip or git bundle.", metavar="HAND-INS..."),
    ],
    lessons: Annotated[str, typer.Option(help="Which lessons, such as 0-3,5; all if left out.")] = "",
    jobs: Annotated[int, typer.Option(min=0, help="How many are graded at once; 0: as many as there are cores.")] = 0,
    out: Annotated[Path, typer.Option(help="The folder for the results, which a second run goes on with.")] = Path(
        "grades"
    ),
    limit: Annotated[int, typer.Option(min=10, help="Seconds that a lesson of one hand-in may take.")] = 300,
    again: Annotated[bool, typer.Option("--again", help="Grade everything anew, also what has not changed.")] = False,
    one: Annotated[
        bool, typer.Option("--one", help="Each path is one hand-in, whatever it holds; for autograders.")
    ] = False,
    scheduler: Annotated[
        str, typer.Option(help="A Dask scheduler whose workers do it, such as tcp://10.0.0.5:8786.", metavar="ADDRESS")
    ] = "",
) -> None:
    """For instructors: grades many people's hand-ins, each in a sandbox, and writes the results.

    Exit code 0: everybody has their marks; 1: something kept us from it; 130: interrupted, the same command goes on.
    """
    from checks.kit.cli import grade as module

    raise typer.Exit(module.grade(paths, lessons, jobs, out, limit, again, scheduler, one))


@app.command(epilog="Example: workbook bench 0")
def bench(
    number: Number = 0,
    rounds: Annotated[int, typer.Option(help="How often each side is measured.")] = 9,
) -> None:
    """For authors: what the kit costs, against the floor measured beside it."""
    from checks.kit.cli import bench as module

    module.bench(catalogue.lesson(number), rounds)


def _folder(target: str, lesson: Lesson) -> Path:
    from checks.kit.targets import find_target, lesson_folder

    return lesson_folder(find_target(target), lesson)
