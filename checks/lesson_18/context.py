"""Which files a build gets: those of the folder that .dockerignore leaves, as the client of Docker reads it."""

from __future__ import annotations

from pathlib import Path


def patterns_of(folder: Path, dockerfile: Path) -> list[str]:
    """The lines of the .dockerignore that belongs to a Dockerfile, without comments."""
    own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    path = own if own.is_file() else folder / ".dockerignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def context_of(folder: Path, dockerfile: Path) -> list[str]:
    """The names of the files in the context of a build, with `/`."""
    from docker.utils.build import exclude_paths

    names = exclude_paths(str(folder), patterns_of(folder, dockerfile), dockerfile=dockerfile.name)
    return sorted(name for name in names if (folder / name).is_file() and not _compiled(name))


def _compiled(name: str) -> bool:
    """Whether Python or a tool has put it there; what the checks ask about such files they put there themselves."""
    return "__pycache__" in name.split("/") or name.endswith(".pyc")
