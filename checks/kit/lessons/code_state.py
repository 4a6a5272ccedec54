"""Which state of a lesson's code something was seen of."""

from __future__ import annotations

import hashlib
from pathlib import Path

SOURCE = (
    *(".py", ".pyi", ".sql", ".mako", ".toml", ".ini", ".cfg", ".yaml", ".yml", ".env"),
    *(".html", ".jinja", ".jinja2", ".j2"),
)
"""How the names of files end that people edit. An app may write logs, databases and caches into its folder, and an
editor its backups; if these counted, the app's own start would be a save that starts it again."""


def code_state(folder: Path) -> str:
    """A digest of the files in `folder` that people edit."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(SOURCE) and not {"__pycache__", ".venv"} & set(path.parts):
            try:
                digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
            except OSError:  # a folder, or gone meanwhile
                continue
    return digest.hexdigest()
