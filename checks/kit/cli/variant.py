"""`workbook dev variant`: other fixes of a lesson, right and wrong ones, edited as folders and kept as patches."""

from __future__ import annotations

from typing import Annotated

import typer

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.paths import display_path

app = typer.Typer(
    help="Other fixes of a lesson, right and wrong ones. You edit a folder; a patch is kept of it.",
    epilog="Examples: workbook dev variant new wrong_no_rollback --lesson 1 --about 'nobody rolls back' "
    "--fails test_after_a_failed_request_the_next_one_works; workbook dev variant save wrong_no_rollback --lesson 1",
    rich_markup_mode=None,
    no_args_is_help=True,
)

Name = Annotated[
    str, typer.Argument(help="right_... or wrong_..., as the patch is called.", metavar="NAME", show_default=False)
]
Number = Annotated[int, typer.Option("--lesson", help="The lesson's number.", show_default=False)]


@app.command(
    epilog="Examples: workbook dev variant new right_psycopg --lesson 1 --about 'psycopg instead of asyncpg'; "
    "workbook dev variant new wrong_no_rollback --lesson 1 --about 'nobody rolls back' "
    "--fails test_after_a_failed_request_the_next_one_works"
)
def new(
    name: Name,
    lesson: Number,
    about: Annotated[str, typer.Option(help="What somebody wrote here, in a line.", show_default=False)],
    on: Annotated[str, typer.Option(help="What it starts from: lesson, solution or another variant.")] = "solution",
    fails: Annotated[list[str] | None, typer.Option(help="A check that fails on it; once for each check.")] = None,
) -> None:
    """Makes a folder in which you write a new variant.

    It begins as a copy of the solution, or of what --on names.
    """
    from checks.kit.authoring.workspace import Workspace

    workspace = Workspace(find_lesson(lesson), name)
    workspace.new(on, about, frozenset(fails or ()))
    _say_how_to_go_on(workspace.folder, workspace.command("save"))


@app.command(name="open", epilog="Example: workbook dev variant open wrong_usual_get_session --lesson 1")
def open_(name: Name, lesson: Number) -> None:
    """Makes a folder in which you change a variant."""
    from checks.kit.authoring.workspace import Workspace

    workspace = Workspace(find_lesson(lesson), name)
    workspace.open()
    _say_how_to_go_on(workspace.folder, workspace.command("save"))


@app.command(
    epilog="Examples: workbook dev variant save wrong_usual_get_session --lesson 1; "
    "workbook dev variant save --all --lesson 1"
)
def save(
    lesson: Number,
    name: Annotated[str, typer.Argument(help="The variant.", metavar="NAME", show_default=False)] = "",
    everything: Annotated[bool, typer.Option("--all", help="Each variant of the lesson that you edited.")] = False,
) -> None:
    """Makes the patch of a variant from its folder.

    The patch keeps its head.
    """
    from checks.kit.authoring.workspace import Workspace, edited_workspaces

    if bool(name) == everything:
        raise typer.BadParameter("name one variant, or say --all.")
    chosen = edited_workspaces(find_lesson(lesson)) if everything else [Workspace(find_lesson(lesson), name)]
    if not chosen:
        typer.echo(f"No variant of lesson {lesson} is open for editing.")
    errors = []
    for workspace in chosen:
        try:
            path = display_path(workspace.save().path)
        except WorkbookError as error:
            errors.append(str(error))
        else:
            typer.echo(f"Saved as {path}. Verify it: workbook dev verify {lesson} --only {workspace.name}")
    if errors:
        raise WorkbookError("\n".join(errors))


@app.command(epilog="Example: workbook dev variant diff wrong_usual_get_session --lesson 1")
def diff(name: Name, lesson: Number) -> None:
    """Shows what a variant changes.

    Shows it as it is in its folder, else as it was saved.
    """
    from checks.kit.authoring.workspace import Workspace

    typer.echo(Workspace(find_lesson(lesson), name).difference(), nl=False)


def _say_how_to_go_on(folder: object, command: str) -> None:
    typer.echo(f"{folder}\nEdit the files there, then: {command}")
