"""Tells a fault of the machine from one of the submission: a full disk makes a check fail that would pass elsewhere."""

from __future__ import annotations

import json
import re

from checks.kit.report.model import Report

DISK_FULL = re.compile(r"could not [^:\n]{1,80}\b(?:file|relation|segment)\b[^:\n]{0,200}: No space left on device")
"""What PostgreSQL says when its own disk is full. An app's sandbox has another one, of which PostgreSQL is silent."""


def disk_full(report: Report) -> str:
    """What PostgreSQL said of its full disk while these checks ran; "" if it said nothing."""
    found = DISK_FULL.search(json.dumps(report.to_dict(), ensure_ascii=False).replace('\\"', '"'))
    return found[0] if found else ""
