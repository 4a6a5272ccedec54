"""`workbook dev`: the commands for authors of lessons. One small function for each; the work is in authoring/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from checks.kit.cli import variant
from checks.kit.lessons.lesson import find_lesson

app = typer.Typer(
    help="For authors: makes lessons, checks them, measures the kit.",
    epilog="Start with .github/CONTRIBUTING.md.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

app.add_typer(variant.app, name="variant")

Number = Annotated[int, typer.Argument(help="The lesson's number, such as 1.", metavar="LESSON", show_default=False)]


@app.command(
    epilog="Examples: workbook dev verify; workbook dev verify 0 1 --jobs 4; workbook dev verify 1 --only wrong_; "
    "workbook dev verify 7 --paper; workbook dev verify --all"
)
def verify(
    numbers: Annotated[
        list[int] | None,
        typer.Argument(help="Lessons; what a change can have affected if left out.", metavar="LESSON..."),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            help="How many apps are graded at once, and more than that with --quick; 0: as many as there are cores."
        ),
    ] = 0,
    only: Annotated[
        str, typer.Option(help="Only cases whose name holds this, such as `solution` or `wrong_`; several with commas.")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every lesson, whatever was changed.")] = False,
    paper: Annotated[bool, typer.Option("--paper", help="Only list what is still to do; nothing runs.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Of a wrong variant, run only the checks that it must fail.")
    ] = False,
) -> None:
    """Checks that lessons do what they promise.

    Their solutions and variants, too: lesson.toml and the heads of the variants say how each must be graded. It lists
    what is still to do.
    """
    from checks.kit.authoring import verify_output

    chosen = [find_lesson(number) for number in numbers or []]
    raise typer.Exit(verify_output.run(chosen, jobs, only, everything=everything, paper=paper, quick=quick))


@app.command(
    epilog="Examples: workbook dev carry; workbook dev carry --from 4 app/database.py; workbook dev carry --check"
)
def carry(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Files, as in app/database.py; all that changed if left out.", metavar="FILE..."),
    ] = None,
    start: Annotated[
        int | None, typer.Option("--from", help="The lesson in whose solution you made the change; all if left out.")
    ] = None,
    base: Annotated[str, typer.Option(help="The commit that holds the files as they were before the change.")] = "HEAD",
    check: Annotated[
        bool, typer.Option("--check", help="Only check that nothing is left to carry; nothing is written.")
    ] = False,
) -> None:
    """Merges a change of a solution into what is made of it.

    That is every later lesson and solution, and all their variants. Each step is a three-way merge.
    """
    from checks.kit.authoring import carry_output

    raise typer.Exit(carry_output.check(base) if check else carry_output.carry(start, files or [], base))


@app.command(epilog="Examples: workbook dev matrix 1; workbook dev matrix 1 --measured")
def matrix(
    number: Number,
    measured: Annotated[
        bool, typer.Option("--measured", help="Grade every app of the lesson, instead of reading what is declared.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="How many apps are graded at once; 0: as many as there are cores.")] = 0,
) -> None:
    """Shows which check is failed by which app.

    A check that no app fails proves nothing.
    """
    from checks.kit.authoring import matrix as module

    raise typer.Exit(module.show(find_lesson(number), measure=measured, jobs=jobs))


@app.command(epilog='Example: workbook dev new-lesson 13 "Search"')
def new_lesson(
    number: Annotated[int, typer.Argument(help="One more than the last lesson.", metavar="LESSON")],
    title: Annotated[str, typer.Argument(help="A few words, such as “Background jobs”.")],
) -> None:
    """Makes every file of a new lesson, with one check that fails."""
    from checks.kit.authoring import new_lesson as module
    from checks.kit.lessons.paths import display_path

    for path in module.new_lesson(number, title):
        typer.echo(f"made {display_path(path)}")
    typer.echo(f"\nNext: uv run workbook dev verify {number}")
    typer.echo("It lists what is still to do. How to do it is in .github/CONTRIBUTING.md.")


@app.command(epilog="Examples: workbook dev handed-out; workbook dev handed-out 7; workbook dev handed-out --check")
def handed_out(
    numbers: Annotated[
        list[int] | None, typer.Argument(help="Lessons; all of them if left out.", metavar="LESSON...")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare only; exit code 1 if one is not current.")] = False,
) -> None:
    """Writes down a lesson's files as they are handed out.

    `workbook reset` and `cost` take them from there: git may know other files, or be absent.
    """
    from checks.kit.authoring import handed_out_output

    raise typer.Exit(handed_out_output.run([find_lesson(number) for number in numbers or []], check))


@app.command(
    epilog="Examples: workbook dev flaky 4 --times 20 --load; workbook dev flaky 4 --only pool --target lessons"
)
def flaky(
    number: Number,
    times: Annotated[int, typer.Option(min=2, help="How many runs.")] = 20,
    load: Annotated[bool, typer.Option("--load", help="With a busy loop on every core meanwhile.")] = False,
    only: Annotated[str, typer.Option(help="Only checks whose name holds this.", metavar="CHECK")] = "",
    target: Annotated[str, typer.Option(help="Whose code: solutions, lessons, or a folder.")] = "solutions",
) -> None:
    """Runs a lesson's checks many times to find unsteady ones.

    Lists those whose verdict differs. Exit code 1 if there are any.
    """
    from checks.kit.authoring import flaky_output

    raise typer.Exit(flaky_output.find_flaky(find_lesson(number), times, target, only, load))


@app.command(epilog="Examples: workbook dev notebook 3; workbook dev notebook 3 --check")
def notebook(
    number: Number,
    check: Annotated[bool, typer.Option("--check", help="Compare only; exit code 1 if outputs differ.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Take all new outputs, also times, pictures and verdicts.")
    ] = False,
) -> None:
    """Executes a lesson's notebook again and writes its outputs.

    A cell keeps its output if only measured times, pictures or the texts of verdicts differ.
    """
    from checks.kit.authoring import notebook_output

    raise typer.Exit(notebook_output.notebook(find_lesson(number), check, fresh))


@app.command(epilog="Examples: workbook dev vocabulary; workbook dev vocabulary --write")
def vocabulary(
    write: Annotated[bool, typer.Option("--write", help="Write it to .github/VOCABULARY.md.")] = False,
) -> None:
    """Prints the words of which checks are made.

    These are fixtures, what they can do, waits and marks.
    """
    from checks.kit.authoring import vocabulary as module

    if write:
        module.PAGE.write_text(module.page(), encoding="utf-8")
    else:
        typer.echo(module.page(), nl=False)


@app.command(epilog="Example: workbook dev bench 0")
def bench(
    number: Number = 0,
    rounds: Annotated[int, typer.Option(help="How often each side is measured.")] = 9,
) -> None:
    """Measures what the kit costs.

    It prints ratios with their limits, such as the time of a grading over that of a bare uvicorn.
    """
    from checks.kit.authoring import bench as module

    module.bench(find_lesson(number), rounds)


@app.command(epilog="Examples: workbook dev drivers; workbook dev drivers asyncpg --file test_copy --only binary")
def drivers(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="asyncpg, psycopg, sqlalchemy, sqlalchemy-psycopg; all if left out.", metavar="NAME..."),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(help="A file of its tests, such as test_copy; can be repeated. All if left out."),
    ] = None,
    only: Annotated[str, typer.Option(help="Only tests that match this, as for `pytest -k`.")] = "",
    source: Annotated[
        Path | None, typer.Option(help="A folder with its source and tests, which is then not fetched.")
    ] = None,
) -> None:
    """Runs drivers' own tests directly and through the proxy.

    Prints those that come out differently; exit code 1 if one does so each time. The tests are fetched once: those of
    asyncpg and SQLAlchemy from their source distributions, those of psycopg from its repository. `sqlalchemy` runs on
    asyncpg, `sqlalchemy-psycopg` on psycopg.
    """
    from checks.kit.authoring import drivers_output

    raise typer.Exit(drivers_output.compare_suites(names or [], file or [], only, source))
