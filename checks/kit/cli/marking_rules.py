"""How `workbook grade` makes marks, from its options."""

from __future__ import annotations

from pathlib import Path

from checks.kit.lessons.errors import WorkbookError
from checks.kit.submissions.marking.late import LatePolicy, parse_due
from checks.kit.submissions.marking.marks import Rules
from checks.kit.submissions.marking.roster import read_roster
from checks.kit.submissions.marking.weights import Weights, read_weights


def marking_rules(roster: Path | None, weights: Path | None, due: str, late: int, late_limit: int) -> Rules:
    """The rules that these options give. Raises WorkbookError."""
    if late and not due:
        raise WorkbookError("--late needs the time at which work was due, such as --due 2026-11-30.")
    return Rules(
        read_weights(weights) if weights else Weights(),
        LatePolicy(parse_due(due), late, late_limit) if due else None,
        read_roster(roster) if roster else None,
    )
