"""`workbook dev notebook`: what it strips, what it keeps, and that a failing cell changes nothing."""

from __future__ import annotations

import base64
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat.v4 as v4
import psutil
import pytest

from checks.kit.authoring import execute_notebook
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson, find_lesson
from checks.kit.lessons.paths import ROOT


def code(source: str, *outputs: Any, cell: str = "cell-01", **metadata: Any) -> Any:
    made = v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)
    made["id"] = cell
    return made


def printed(text: str) -> Any:
    return v4.new_output("stream", name="stdout", text=text)


def drawn(kind: str, data: str) -> Any:
    return v4.new_output("display_data", data={kind: data, "text/plain": "a picture"})


def waterfall(*statements: str) -> Any:
    svg = f"<svg><desc>{chr(10).join(statements)}\n</desc><rect x='{len(statements)}'/></svg>"
    return drawn("text/html", f'<img src="data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}">')


def test_noise_of_the_machine_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/opt/python")
    output = printed(f"{ROOT}/lessons/a.py in /opt/python/lib, {Path.home()}/x, <object at 0x7f12ab34cd>")
    execution = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    notebook = v4.new_notebook(cells=[code("a", output, execution=execution)])
    notebook.metadata["language_info"] = {"name": "python", "version": "3.13.1"}
    clean = execute_notebook.without_noise(notebook)
    text = clean.cells[0].outputs[0].text
    assert text == "lessons/a.py in env/lib, ~/x, <object at 0x…>"
    assert clean.cells[0].metadata == {}
    assert clean.metadata == {"language_info": {"name": "python"}}


@pytest.mark.parametrize(
    ("before", "after", "differs"),
    [
        (printed("took 3.1 ms for 11 statements"), printed("took 14 ms for 11 statements"), False),
        (printed("took 3.1 ms for 11 statements"), printed("took 3.1 ms for 12 statements"), True),
        (printed("ratio 5.93"), printed("ratio 6.1"), False),
        (printed("14815 bytes"), printed("14812 bytes"), False),
        (printed("101% of 1,251,817 guesses"), printed("93% of 432,450 guesses"), False),
        (drawn("image/png", "AAAA"), drawn("image/png", "BBBB"), False),
        (drawn("image/png", "AAAA"), printed("a picture"), True),
        (waterfall(" 1.2 ms  #1 SELECT 1"), waterfall("13.2 ms  #1 SELECT 1", "15.0 ms  #1 ROLLBACK;"), False),
        (waterfall(" 1.2 ms  #1 SELECT 1"), waterfall(" 1.2 ms  #1 SELECT 1", " 3.2 ms  #1 SELECT 2"), True),
        (waterfall("1.2 ms  #1 A", "1.3 ms  #2 B"), waterfall("1.1 ms  #1 B", "14.5 ms  #2 A"), False),
        (waterfall("1.2 ms  #1 A", "1.3 ms  200"), waterfall("1.2 ms  200", "1.3 ms  #1 A"), True),
    ],
)
def test_measured_numbers_are_noise_and_counts_are_not(before: Any, after: Any, differs: bool) -> None:
    old, new = v4.new_notebook(cells=[code("a", before)]), v4.new_notebook(cells=[code("a", after)])
    assert execute_notebook.keep_known_outputs(old, new) == (["cell-01"] if differs else [])
    assert new.cells[0].outputs == [after if differs else before]


def test_a_cell_with_other_code_gets_its_new_outputs() -> None:
    old = v4.new_notebook(cells=[code("a", printed("1.0 ms"))])
    new = v4.new_notebook(cells=[code("b", printed("2.0 ms")), code("c", printed("3.0 ms"), cell="cell-02")])
    assert execute_notebook.keep_known_outputs(old, new) == ["cell-01", "cell-02"]
    assert new.cells[0].outputs[0].text == "2.0 ms"


@pytest.fixture
def lesson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lesson:
    monkeypatch.setattr(Lesson, "notebook", tmp_path / "lesson_00.ipynb")
    return replace(find_lesson(0))


def test_a_failing_cell_is_shown_and_nothing_is_written(lesson: Lesson) -> None:
    cells = [code("print('fine')"), code("wrong = 1\nwrong / 0", cell="cell-02")]
    execute_notebook.write(lesson, v4.new_notebook(cells=cells))
    before = lesson.notebook.read_bytes()
    begun: list[tuple[int, int]] = []
    with pytest.raises(WorkbookError) as caught:
        execute_notebook.execute(lesson, lambda cell, total: begun.append((cell, total)))
    assert "cell-02 raised ZeroDivisionError: division by zero" in str(caught.value)
    assert "    wrong / 0" in str(caught.value)
    assert begun == [(1, 2), (2, 2)]
    assert lesson.notebook.read_bytes() == before


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As the command line does it: what runs in the background of a shell ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_ends_the_kernel_and_writes_nothing(lesson: Lesson, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    note = f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))"
    execute_notebook.write(lesson, v4.new_notebook(cells=[code(note), code("time.sleep(600)", cell="cell-02")]))
    before, ours = lesson.notebook.read_bytes(), signal.getsignal(signal.SIGTERM)

    def on_cell(cell: int, total: int) -> None:
        assert signal.getsignal(signal.SIGTERM) == ours
        if cell == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        execute_notebook.execute(lesson, on_cell)
    assert not psutil.pid_exists(int(pid.read_text()))
    assert lesson.notebook.read_bytes() == before


def test_a_kernel_that_dies_is_said_so(lesson: Lesson) -> None:
    killed = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    execute_notebook.write(lesson, v4.new_notebook(cells=[code(killed)]))
    with pytest.raises(WorkbookError, match="was killed, or crashed"):
        execute_notebook.execute(lesson, lambda cell, total: None)


def test_a_second_run_writes_the_same_file(lesson: Lesson) -> None:
    source = "import os, time\nprint(f'{time.perf_counter()} s')\nprint(2, end=' ', flush=True)\nprint(3)"
    execute_notebook.write(lesson, v4.new_notebook(cells=[code(source)]))
    texts = []
    for _ in range(2):
        before = execute_notebook.read(lesson)
        after = execute_notebook.execute(lesson, lambda cell, total: None)
        execute_notebook.keep_known_outputs(before, after)
        execute_notebook.write(lesson, after)
        texts.append(lesson.notebook.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    assert "2 3" in texts[0]


def test_what_is_no_notebook_is_said_so(lesson: Lesson) -> None:
    with pytest.raises(WorkbookError, match=r"does not exist"):
        execute_notebook.read(lesson)
    lesson.notebook.write_text("{", encoding="utf-8")
    with pytest.raises(WorkbookError, match=r"is not a valid notebook"):
        execute_notebook.read(lesson)
