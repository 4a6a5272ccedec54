"""Starts the reference: the same work as three endpoints of the shop, with Starlette and asyncpg alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from checks.kit.testbed.releases import release_folder

if TYPE_CHECKING:
    from checks.kit.service.app import App
    from checks.kit.testbed.testbed import Testbed

SOURCE = Path(__file__).parent / "reference_app.py"


async def launch_reference(testbed: Testbed) -> App:
    """The reference, ready for requests."""
    tree = {"app/__init__.py": b"", "app/main.py": SOURCE.read_bytes()}
    folder = await asyncio.to_thread(release_folder, testbed.lesson.name, tree)
    return await testbed.launch(folder=folder, called="the reference")
