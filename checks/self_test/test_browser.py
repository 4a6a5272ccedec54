"""JupyterLab in a real browser, as a learner uses it: run the notebook, fix the lesson, see the check turn green."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from checks.kit.lessons.lesson import find_lesson

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
EXPOSED = "window.jupyterapp"
"""What JupyterLab puts there when it is told to: its commands can be called by name."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not BROWSER, reason="no Chromium here; Debian's: apt-get install chromium"),
]


@pytest.fixture
def checkout(tmp_path: Path, copied: Callable[[Path], Path]) -> Path:
    return copied(tmp_path / "bookshop")


@pytest.fixture
async def lab(checkout: Path, tmp_path: Path) -> AsyncIterator[str]:
    """JupyterLab's address, serving the checkout."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = tmp_path / "settings/@jupyterlab/notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))
    environ = os.environ | {
        "PYTHONPATH": str(checkout),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
        "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True", "--LabApp.expose_app_in_browser=True",
        f"--ServerApp.root_dir={checkout}",
        cwd=checkout, env=environ, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert server.stderr is not None
    said = b""
    async with asyncio.timeout(60):
        while b"is running at" not in said:
            line = await server.stderr.readline()
            assert line, said.decode()
            said += line
    draining = asyncio.create_task(server.stderr.read())
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    await server.wait()
    await draining


@pytest.fixture
async def page() -> AsyncIterator[Any]:
    api = pytest.importorskip(
        "playwright.async_api", reason="playwright is not installed; it comes with: uv sync --group browser"
    )
    async with api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        yield page
        await browser.close()


async def test_a_learner_sees_the_lesson_turn_green(lab: str, page: Any, checkout: Path) -> None:
    await page.goto(f"{lab}/lab/tree/notebooks/lesson_03.ipynb")
    await page.wait_for_function(f"{EXPOSED}?.shell.currentWidget?.content?.widgets?.length > 5")
    await page.wait_for_function(f"{EXPOSED}.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'")
    await execute(page, "notebook:run-all-cells")
    verdict = page.locator(".jp-OutputArea .bookshop").last
    before = await verdict.inner_text()
    assert "✗" in before
    assert "Why it matters" in before
    assert "Open: lessons/lesson_03/app/" in before
    pictures = page.locator(".jp-OutputArea img[src^='data:image/svg+xml'][alt^='GET /authors']")
    assert await pictures.count() >= 1, "no waterfall to be seen"

    shutil.copytree(checkout / "solutions/lesson_03/app", checkout / "lessons/lesson_03/app", dirs_exist_ok=True)
    cells = page.locator(".jp-Notebook .jp-CodeCell").filter(has_text='check("lesson_03")')
    await cells.last.locator(".cm-content").click()
    await execute(page, "notebook:run-cell")
    checks = len(find_lesson(3).checks)
    await page.get_by_text(f"{checks} of {checks} checks pass").last.wait_for()
    after = await verdict.inner_text()
    assert "✗" not in after
    assert "Next: lessons/lesson_04/README.md" in after


async def execute(page: Any, command: str) -> None:
    """A command of JupyterLab; comes back when the cells that it runs have ended."""
    async with asyncio.timeout(120):
        await page.evaluate(f"{EXPOSED}.commands.execute('{command}')")
