"""The learner's app as a process of its own."""

from checks.kit.service.app import (
    Answer,
    App,
    AppDidNotStart,
    Exit,
    NoAnswer,
    Pending,
    UnexpectedAnswer,
    running,
)
from checks.kit.service.command import Done, run_command
from checks.kit.service.journal import Journal, sweep
from checks.kit.service.launcher import Launcher, open_launcher

__all__ = [
    "Answer",
    "App",
    "AppDidNotStart",
    "Done",
    "Exit",
    "Journal",
    "Launcher",
    "NoAnswer",
    "Pending",
    "UnexpectedAnswer",
    "open_launcher",
    "run_command",
    "running",
    "sweep",
]
