"""Executes a lesson's notebook and keeps its outputs free of noise: `workbook dev notebook`.

What a run leaves behind besides its results is dropped: times of execution, the kernel's version, paths of this
machine. A cell's new outputs replace the committed ones only where more differs than measured times and pictures of
them, so that executing a notebook twice changes nothing in its file.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import ROOT, display_path

CELL_LIMIT = 600
"""Seconds that a cell may take; a bound for failures."""

QUIET = "--IPKernelApp.log_level=ERROR"
"""The kernel warns that it talks over TCP, which on one machine nobody minds."""

ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
DATA_FOLDER = re.compile(r"\.workbook/[\w.-]+/postgres")  # of an account of its own, where root starts the server
UNITS = "ms|µs|s|seconds?|milliseconds|minutes?|bytes|kB|MB|times"
MEASURED = re.compile(rf"\d[\d,]*(\.\d+)?(?=\s*(?:(?:{UNITS})\b|%))|\d+\.\d+|\d{{1,3}}(,\d{{3}})+")
SPACES = re.compile(r"^ +|(?<= ) +", re.MULTILINE)  # columns are as wide as their numbers
ROLLBACK = re.compile(r"^.*#\d+ +ROLLBACK;.*\n", re.MULTILINE)  # follows the response, or is overtaken by it
STATEMENTS = re.compile(r"(?:^# ms #\d+ .*\n?)+", re.MULTILINE)  # of a waterfall, between two moments
CONNECTION = re.compile(r"^# ms #\d+", re.MULTILINE)
VERDICT = re.compile(r'<li class="(\w+)">(.*?)</li>', re.DOTALL)
SVG = re.compile(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)")
DESCRIPTION = re.compile(r"<desc>(.*?)</desc>", re.DOTALL)

Progress = Callable[[int, int], None]
"""Called as each code cell begins, with its place among the code cells, from 1, and their number."""


def execute(lesson: Lesson, on_cell: Progress) -> Any:
    """The lesson's notebook with the outputs of a new run, free of noise; nothing is written.

    Raises WorkbookError with the cell and its error if one fails.
    """
    notebook = read(lesson)
    codes = [number for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"]

    def started(cell: Any, cell_index: int) -> None:
        if cell_index in codes:
            on_cell(codes.index(cell_index) + 1, len(codes))

    client = NotebookClient(
        notebook,
        timeout=CELL_LIMIT,
        record_timing=False,
        coalesce_streams=True,  # how printed lines fall into pieces is up to the kernel's timing
        extra_arguments=[QUIET],
        resources={"metadata": {"path": str(lesson.notebook.parent)}},
        on_cell_start=started,
    )
    # the kit of this checkout, wherever the environment has one installed from
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(":;")}
    try:
        with asyncio.Runner(loop_factory=_LoopWithoutSignals) as runner:
            runner.run(_run(client, environ))
    except CellExecutionError as error:
        raise WorkbookError(_failure(lesson, notebook, error)) from error
    except DeadKernelError:
        raise WorkbookError(
            f"{display_path(lesson.notebook)} was not changed: the process that ran its cells was killed, or crashed. "
            "If the machine has memory left, type the same command again."
        ) from None
    return without_noise(notebook)


class _LoopWithoutSignals(asyncio.SelectorEventLoop):
    """Keeps SIGINT and SIGTERM to our own handlers, which cancel the run, so that the kernel is ended.

    nbclient's would end the kernel while the cell runs, and then fail with an error of nbclient. It does without them
    where a loop knows no signals.
    """

    def add_signal_handler(self, sig: int, callback: object, *args: object) -> None:
        raise NotImplementedError


async def _run(client: NotebookClient, environ: dict[str, str]) -> None:
    try:
        await client.async_execute(env=environ)
    except DeadKernelError:  # nbclient says so of a run that was canceled, too
        task = asyncio.current_task()
        if task and task.cancelling():
            raise asyncio.CancelledError from None
        raise


def _failure(lesson: Lesson, notebook: Any, error: CellExecutionError) -> str:
    """Which cell failed, its code, and what it raised."""
    path = display_path(lesson.notebook)
    for cell in notebook.cells:
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            code = "\n".join(f"    {line}" for line in cell.source.splitlines())
            return (
                f"{path} was not changed: cell {cell.id} raised {error.ename}: {error.evalue}\n\n"
                f"{code}\n\nFix the cell, or what it runs, and type the same command again."
            )
    return f"{path} was not changed: {error}"


def read(lesson: Lesson) -> Any:
    """The notebook as it is on disk. Raises WorkbookError if there is none, or no valid one."""
    path = display_path(lesson.notebook)
    try:
        notebook = nbformat.read(lesson.notebook, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)
    except FileNotFoundError:
        raise WorkbookError(f"{path} does not exist.") from None
    except (nbformat.ValidationError, nbformat.reader.NotJSONError) as error:
        raise WorkbookError(f"{path} is not a valid notebook: {str(error).splitlines()[0]}") from None
    return notebook


def write(lesson: Lesson, notebook: Any) -> None:
    """Writes the notebook whole or not at all."""
    fresh = lesson.notebook.with_suffix(".new")
    text = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    fresh.write_text(text.rstrip() + "\n", encoding="utf-8")
    fresh.replace(lesson.notebook)


def without_noise(notebook: Any) -> Any:
    """The notebook without what says something about this machine or this run only."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        for name in ("execution", "ExecuteTime", "scrolled", "collapsed"):
            cell.metadata.pop(name, None)
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = _clean(output["text"])
            for kind, value in output.get("data", {}).items():
                if isinstance(value, str) and not kind.startswith("image/"):
                    output["data"][kind] = _clean(value)
    return notebook


def _clean(text: str) -> str:
    text = text.replace(f"{ROOT}{os.sep}", "")
    folders = {str(ROOT): ".", sys.prefix: "env", str(Path.home()): "~", tempfile.gettempdir(): "tmp"}
    for folder, name in sorted(folders.items(), key=lambda item: -len(item[0])):
        if len(folder) > 1:
            text = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", name, text)
    return DATA_FOLDER.sub(".workbook/postgres", ADDRESS.sub("at 0x…", text))


def keep_known_outputs(before: Any, after: Any) -> list[str]:
    """Puts outputs of `before` back into `after` where a cell's code and its findings are the same.

    Returns the ids of the cells whose outputs, or whose code, are different.
    """
    old = {cell.id: cell for cell in before.cells if cell.cell_type == "code"}
    different = []
    for cell in after.cells:
        if cell.cell_type != "code":
            continue
        known = old.get(cell.id)
        if known is not None and known.source == cell.source and findings(known.outputs) == findings(cell.outputs):
            cell.outputs = known.outputs
        else:
            different.append(cell.id)
    return different


def findings(outputs: list[Any]) -> list[tuple[str, str]]:
    """Kind and text of each output, with `#` for every measured number; of a picture only that it is one.

    Of a lesson's verdicts it is which checks passed: their evidence is another one each time.
    """
    found = []
    for output in outputs:
        data = {"text/plain": output["text"]} if "text" in output else output.get("data", {})
        if verdicts := VERDICT.findall(data.get("text/html", "")):
            data = {"text/html": "\n".join(f"{outcome} {title}" for outcome, title in verdicts)}
        for kind, value in sorted(data.items()):
            text = "" if kind.startswith("image/") else _without_measurements(value)
            found.append((f"{output.output_type} {kind}", text))
    return found


def _without_measurements(text: str) -> str:
    """Text with `#` for each number that has a unit or a decimal point; counts stay.

    Statements that a waterfall shows at the same time are sorted: which of several connections is first is luck.
    """
    text = SVG.sub(lambda match: _description(match[1]), text)
    text = SPACES.sub("", MEASURED.sub("#", ROLLBACK.sub("", text)))
    return STATEMENTS.sub(lambda match: _sorted(match[0]), text)


def _sorted(statements: str) -> str:
    lines = CONNECTION.sub("# ms #", statements).splitlines()
    return "".join(f"{line}\n" for line in sorted(lines))


def _description(encoded: str) -> str:
    """What a drawing says to those who cannot see it; our waterfalls name their statements there."""
    match = DESCRIPTION.search(base64.b64decode(encoded).decode("utf-8", errors="replace"))
    return f"\n{match[1]}\n" if match else ""
