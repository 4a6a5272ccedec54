"""Which files decide what `alembic upgrade head` makes: databases are cloned from one that these files made."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

DYNAMIC = re.compile(rb"importlib|__import__|runpy|\bexec\b|\beval\b")
"""What makes imports that this module cannot follow."""


def migration_key(folder: Path) -> str:
    """A digest of the migrations in `folder`, alembic.ini, and the modules of the app that they import.

    A change elsewhere in the app keeps the key, so that the databases of one fix serve the next. If an import
    cannot be followed, the whole app counts.
    """
    migrations = [path for path in folder.glob("migrations/**/*") if "__pycache__" not in path.parts]
    files = {folder / "alembic.ini", *migrations}
    waiting = [path for path in files if path.suffix == ".py"]
    while waiting:
        path = waiting.pop()
        imported = _imported(path, folder)
        if imported is None:
            files.update(folder.glob("app/**/*.py"))
            break
        waiting += imported - files
        files |= imported
    digest = hashlib.sha256()
    for path in sorted(file for file in files if file.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _imported(path: Path, folder: Path) -> set[Path] | None:
    """The files below `folder` that a module imports, its packages included; None if that cannot be told."""
    try:
        names = _names_in(path.read_bytes(), path.relative_to(folder).parts[:-1])
    except (OSError, SyntaxError, ValueError):
        return None
    return None if names is None else {file for name in names for file in _files(folder, name)}


@lru_cache(maxsize=256)  # each check asks for the key of the same files, and parsing them takes as long as a request
def _names_in(source: bytes, package: tuple[str, ...]) -> frozenset[tuple[str, ...]] | None:
    return None if DYNAMIC.search(source) else frozenset(_names(ast.parse(source), package))


def _names(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every dotted name that may be a module: `from a import b` gives a.b, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            yield module
            yield from ((*module, alias.name) for alias in node.names)


def _files(folder: Path, name: tuple[str, ...]) -> Iterator[Path]:
    for length in range(1, len(name) + 1):
        place = folder.joinpath(*name[:length])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                yield file
