"""Writes what `--report-json` asks for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from checks.kit.report.model import Report


def write_report(path: str, reports: Iterable[Report]) -> bool:
    """False if it could not be written, which is said on standard error; the verdicts are printed all the same."""
    text = json.dumps([report.to_dict() for report in reports], indent=2, ensure_ascii=False)
    try:
        Path(path).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"--report-json {path} could not be written: {error.strerror}.\n")
        return False
    return True
