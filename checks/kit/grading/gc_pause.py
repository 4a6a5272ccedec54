"""Keeps the garbage collector off while a grader starts.

Imports make many objects and throw few away, yet the collector looks at them again and again. With the pause a
grader takes 0.87 of the processor time (lesson 00 from a cold start, median of 12 paired runs).
"""

from __future__ import annotations

import gc


def begin() -> None:
    """To be called before the imports."""
    gc.disable()


def end() -> None:
    """To be called after the first check, which makes the last imports; does nothing after that."""
    if not gc.isenabled():
        gc.freeze()  # first: enabled, the collector would go through all of it at once
        gc.enable()
