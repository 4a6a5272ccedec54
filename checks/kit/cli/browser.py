"""Says where a page is, and opens it in the browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def announce(console: Console, address: str, *, browser: bool) -> None:
    """Prints the address of a page. With `browser`, opens a window with it where a window can be opened."""
    console.print(f"The page: {address}", soft_wrap=True)
    console.print("Anybody who has this address can read the page. Ctrl-C ends it.", style="dim", soft_wrap=True)
    if browser and _has_screen():
        # some commands for a browser end with it, and nobody is to wait for that
        Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _has_screen() -> bool:
    """Whether a window can be opened; otherwise Python would look for a browser that takes over the terminal."""
    return sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")))
