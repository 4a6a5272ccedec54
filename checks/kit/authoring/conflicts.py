"""Conflicts of `workbook dev carry` that wait to be resolved, and those that were resolved already.

Until the change is committed, each run of carry meets the same conflict again. So what was merged is kept here: once
somebody resolved it, a later run brings only what changed since.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from checks.kit.authoring.merge import conflict_lines
from checks.kit.lessons.patches import read_tree, write_tree
from checks.kit.lessons.paths import ROOT, STATE, display_path

FOLDER = STATE / "carry"
"""Merges with conflict markers, as `lessons/lesson_05/app/main.py` below it."""

MEMORY = STATE / "carried"
"""What was merged there: a folder for each field of a conflict, with the same paths below it."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A change of one file that conflicts in a later folder; None: the file is absent."""

    path: str
    """The file that the change is brought into, as `lessons/lesson_05/app/main.py`."""
    before: bytes | None
    """The changed file at the commit from which its change is taken."""
    base: bytes | None
    """What the file was merged from: as `before`, or as it was when an earlier conflict was resolved."""
    after: bytes | None
    """The changed file as it was brought."""
    here: bytes | None
    merged: bytes | None

    @property
    def markers(self) -> Path:
        """The merge with conflict markers. It is there until the conflict is resolved."""
        return FOLDER / self.path

    @property
    def number(self) -> int:
        """The lesson whose files the conflict is in."""
        return int(self.path.split("/")[1].removeprefix("lesson_"))

    @property
    def name(self) -> str:
        return self.path.split("/", 2)[2]

    def source(self) -> bytes | None:
        """The changed file as it is now."""
        return _content(ROOT / "solutions" / f"lesson_{self.number - 1:02}" / self.name)

    def waits(self) -> bool:
        """Whether nobody resolved it: the file is still as it was, and the merge not copied there nor deleted."""
        merge, now = _content(self.markers), _content(ROOT / self.path)
        if merge is None:
            return False
        return bool(conflict_lines(now or b"")) or (now == self.here and now != merge)

    def untouched(self) -> bool:
        """Whether the merge is as carry wrote it."""
        return _content(self.markers) == self.merged

    def advice(self) -> str:
        """How to resolve it, with each line at which a conflict begins."""
        shown = display_path(self.markers)
        lines = conflict_lines(_content(self.markers) or b"")
        where = ", ".join(f"{shown}:{line}" for line in lines) or shown
        return (
            f"resolve {where} and copy it to {self.path} (or delete it, if {self.path} is right), "
            f"then: workbook dev carry --from {self.number} {self.name}"
        )

    def keep(self) -> None:
        """Writes the merge with its markers, and remembers the rest."""
        for place, content in [(FOLDER, self.merged), *((MEMORY / part, getattr(self, part)) for part in PARTS)]:
            if content is None:
                (place / self.path).unlink(missing_ok=True)
            else:
                write_tree({self.path: content}, place)

    def close(self) -> None:
        """Takes away the merge of a conflict that was resolved, or whose change was taken back."""
        self.markers.unlink(missing_ok=True)


PARTS = tuple(field.name for field in fields(Conflict) if field.name != "path")


def known_conflicts() -> dict[str, Conflict]:
    """All conflicts that were ever kept, by path."""
    parts = {part: read_tree(MEMORY / part) for part in PARTS}
    return {path: Conflict(path, **{part: parts[part].get(path) for part in PARTS}) for path in parts["merged"]}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
