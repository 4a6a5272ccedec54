"""The page of `workbook view` in a real browser: beside an editor that saves, and beside `workbook serve`."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from checks.self_test.commands import ENVIRON, WORKBOOK, free_port, read_until

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not BROWSER, reason="no Chromium here; Debian's: apt-get install chromium"),
]

PWN = "window.pwned = true"
HOSTILE = f"""<img src=x onerror='{PWN}'><script>{PWN}</script></pre></details>"""
HOSTILE_APP = f"""

from sqlalchemy import text as _text
from sqlalchemy.ext.asyncio import create_async_engine as _create

HOSTILE = {HOSTILE!r}
app.title = HOSTILE
print(HOSTILE, flush=True)


@app.get("/hostile")
async def hostile() -> None:
    engine = _create(__import__("os").environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        await connection.execute(_text("SELECT $x$" + HOSTILE + "$x$"))
    await engine.dispose()
    raise RuntimeError(HOSTILE)
"""


@pytest.fixture
def checkout(folder: Path, copied: Callable[[Path], Path]) -> Path:
    return copied(folder / "bookshop")


@asynccontextmanager
async def running(checkout: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A `workbook` command, which gets Ctrl-C at the end of the block unless it has ended."""
    process = await asyncio.create_subprocess_exec(
        *WORKBOOK, *arguments, cwd=checkout, stdout=asyncio.subprocess.PIPE, env=ENVIRON | {"PYTHONUNBUFFERED": "1"}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            assert process.stdout is not None
            await process.stdout.read()
            assert await process.wait() == 0


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    api = pytest.importorskip(
        "playwright.async_api", reason="playwright is not installed; it comes with: uv sync --group browser"
    )
    async with api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        await browser.close()


async def opened(browser: Any, address: str, width: int, said: list[str]) -> Any:
    """A window of this width with the page in it; `said` gets what the browser complains about."""
    page = await browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(100_000)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    await page.goto(address)
    await page.evaluate("window.here = true")  # gone after a reload
    return page


async def wait_for_all(pages: list[Any], text: str) -> None:
    for page in pages:
        await page.locator("header .tally", has_text=text).wait_for()


async def test_a_saved_file_turns_checks_green_without_a_reload(checkout: Path, browser: Any) -> None:
    main = checkout / "lessons/lesson_00/app/main.py"
    handed_out = main.read_text()
    main.write_text(handed_out + HOSTILE_APP)
    said: list[str] = []
    async with running(checkout, "view", "0", "--no-browser") as view:
        assert view.stdout is not None
        [address] = re.findall(r"http://127\S+", await read_until(view.stdout, "\n"))
        pages = [await opened(browser, address, width, said) for width in (400, 1600)]
        await wait_for_all(pages, "of 8 checks pass")
        await pages[0].locator("header code").first.wait_for()  # all checks have ended
        for page in pages:
            await page.evaluate("document.querySelectorAll('.check:not([open]) > summary').forEach(one => one.click())")
            assert await page.locator(".check.failed").count() >= 3
            assert await page.locator(".timeline li.request").count() >= 1
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await pages[1].locator(".ticket blockquote").first.is_visible()

        await pages[1].keyboard.press("Tab")  # by the keyboard alone: a hint, which stays where the focus is
        button = pages[1].locator("button[data-do^='hint/']").first
        await button.focus()
        await pages[1].keyboard.press("Enter")
        await pages[1].locator(".hints li").first.wait_for()
        assert await pages[1].evaluate("document.activeElement.dataset.do?.startsWith('hint/')")

        async with running(checkout, "serve", "0", "--port", str(port := free_port())) as serve:
            assert serve.stdout is not None
            await asyncio.wait_for(read_until(serve.stdout, "/docs"), 100)
            async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
                response = await client.get(f"http://127.0.0.1:{port}/hostile", params={"q": HOSTILE})
                assert response.status_code == 500
            for page in pages:
                sent = page.locator(".sent.failed", has_text="/hostile")
                await sent.locator("summary").click()
                assert await sent.locator(".timeline .statement", has_text="SELECT").count() >= 1
                assert "<script>" in await sent.locator("pre").inner_text()
        await pages[0].get_by_text("has ended").wait_for()

        main.write_text(handed_out)
        shutil.copytree(checkout / "solutions/lesson_00/app", checkout / "lessons/lesson_00/app", dirs_exist_ok=True)
        await wait_for_all(pages, "8 of 8 checks pass")
        for page in pages:
            await (
                page.locator("summary", has_text="Compare with the solution")
                .or_(page.get_by_text("to the letter"))
                .first.wait_for()
            )
            assert await page.locator(".check.passed").count() == 8
            assert await page.evaluate("window.here && !window.pwned")
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        view.send_signal(signal.SIGINT)
        assert await view.wait() == 0
        await pages[0].get_by_text("Start it again: workbook view 0").wait_for()
    assert [line for line in said if "ERR_" not in line] == []
