"""Options of pytest with which checks cannot be graded: a sentence for each, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest


def refused_option(config: pytest.Config) -> str:
    """Why these options do not fit, and what to type instead; empty if they do."""
    option = config.option
    if option.setuponly or option.setupplan:
        return (
            "--setup-only and --setup-plan say nothing about a check, because it does not use pytest's fixtures. "
            "To list the checks: pytest checks/lesson_00 --collect-only"
        )
    if getattr(option, "numprocesses", None):
        return "Checks run several at a time in one process. Leave out -n and -p xdist; --at-once 8 runs eight."
    if option.at_once < 1:
        return f"--at-once {option.at_once}: at least one check must run at a time."
    if not config.pluginmanager.has_plugin("terminalreporter"):
        return "The verdicts are printed by pytest's terminal reporter. Leave out -p no:terminal."
    if option.report_json and not Path(option.report_json).absolute().parent.is_dir():
        return f"--report-json {option.report_json}: there is no such folder. Make it first, or choose another file."
    return ""
