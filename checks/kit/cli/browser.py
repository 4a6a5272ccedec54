"""Opens a page in the browser, where there is one."""

from __future__ import annotations

import os
import sys
import webbrowser
from threading import Thread


def open_in_browser(address: str) -> None:
    """Opens a window with the page, unless there is no screen for one."""
    if _has_screen():
        # some commands for a browser end with it, and nobody is to wait for that
        Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _has_screen() -> bool:
    """Whether a window can be opened; otherwise Python would look for a browser that takes over the terminal."""
    return sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")))
