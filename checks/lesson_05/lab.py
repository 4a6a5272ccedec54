"""What the notebook of lesson 05 works with: small Alembic projects on live databases, and pictures of revisions."""

from __future__ import annotations

import re
import tempfile
import textwrap
from contextlib import asynccontextmanager
from pathlib import Path

from checks.kit.notebook import command_line

INI = "[alembic]\nscript_location = %(here)s\nprepend_sys_path = %(here)s\n"

ENV = """import asyncio
import os

from alembic import context
from models import Base
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine


def run(connection):
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        on_version_apply=lambda step, **_: print("ran", step.up_revision_id),
    )
    with context.begin_transaction():
        context.run_migrations()


async def main():
    engine = create_async_engine(os.environ["DATABASE_URL"], poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)


asyncio.run(main())
"""

NO_MODELS = "from sqlalchemy.orm import DeclarativeBase\n\n\nclass Base(DeclarativeBase):\n    pass\n"

REVISION = """import sqlalchemy as sa
from alembic import op

revision = {id!r}
down_revision = {after!r}


def upgrade():
{upgrade}


def downgrade():
{downgrade}
"""


DIALECT = r"\(sqlalchemy\.dialects\S+\) (<class '[\w.]+'>: )?"
"""What SQLAlchemy writes before the message of PostgreSQL."""


_folders = []
"""What deletes the folders of projects when the notebook's kernel ends."""


def project(revisions, models=NO_MODELS):
    """A folder with an Alembic project; it lasts as long as the notebook.

    `revisions` is {id: (after, upgrade, downgrade)}: the id that it comes after, None, or several ids, and the code of
    the two functions. The downgrade may be left out. `models` is the text of models.py, which has a Base.
    """
    _folders.append(tempfile.TemporaryDirectory(prefix="notebook-"))
    folder = Path(_folders[-1].name)
    (folder / "versions").mkdir()
    files = {"alembic.ini": INI, "env.py": ENV, "models.py": models}
    for id_, (after, upgrade, *downgrade) in revisions.items():
        code = [textwrap.indent(textwrap.dedent(text).strip(), "    ") for text in (upgrade, *(downgrade or ["pass"]))]
        files[f"versions/{id_}.py"] = REVISION.format(id=id_, after=after, upgrade=code[0], downgrade=code[1])
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


class Database:
    """An empty database of its own, and Alembic on it."""

    def __init__(self, line):
        self.shop = line.shop
        self.url = line.testbed.url
        self._testbed = line.testbed

    async def alembic(self, folder, *commands):
        """Runs each command of the project in `folder`; prints how it ended, what ran, or the error."""
        for command in commands:
            done = await self._testbed.command("alembic", "-c", f"{folder}/alembic.ini", *command.split())
            ran = ", ".join(re.findall(r"^ran (\S+)", done.output, re.MULTILINE))
            reason = done.last_line
            print(f"$ alembic {command:<18} exit code {done.code}   {f'ran {ran}' if ran else ''}".rstrip())  # noqa: T201
            if not done.ok:
                print(f"    {re.sub(DIALECT, '', reason)[:150]}")  # noqa: T201

    async def show(self, sql):
        """Prints the rows of a query, one in each line."""
        for row in await self.shop.rows(sql):
            print("   ", "   ".join(f"{name}: {value!r}" for name, value in row.items()))  # noqa: T201


@asynccontextmanager
async def database():
    """An empty database while the block lasts: `async with database() as db: await db.alembic(folder, "check")`."""
    async with command_line(5) as line:
        yield Database(line)


HAS, RUNS, NEVER, OTHER = "#4c78a8", "#54a24b", "#e45756", "#d0d0d0"
COLORS = {"staging has run it": HAS, "upgrade head runs it there": RUNS, "staging never gets it": NEVER}


def draw_revisions(panels):
    """Draws the revisions of projects from left to right.

    `panels` is {title: (folder, colors, notes)}: colors by revision, and a word to write below a revision.
    """
    import matplotlib.pyplot as plt
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    figure, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 2.0))
    for axis, (title, (folder, colors, notes)) in zip(axes, panels.items(), strict=True):
        revisions = list(ScriptDirectory.from_config(Config(f"{folder}/alembic.ini")).walk_revisions())[::-1]
        places, taken = {}, {}
        for revision in revisions:
            parents = revision.down_revision or ()
            after = [places[parent] for parent in ([parents] if isinstance(parents, str) else parents)]
            x = max((parent[0] for parent in after), default=-1) + 1
            places[revision.revision] = x, -taken.get(x, 0) if len(after) < 2 else -0.5
            taken[x] = taken.get(x, 0) + 1
            for parent in after:
                axis.annotate(
                    "", places[revision.revision], parent,
                    arrowprops={"arrowstyle": "->", "color": "#888888", "shrinkA": 14, "shrinkB": 14},
                )  # fmt: skip
        for name, (x, y) in places.items():
            color = colors.get(name, OTHER)
            axis.text(x, y, name, ha="center", va="center", fontsize=9, color="black" if color == OTHER else "white",
                      bbox={"boxstyle": "round,pad=0.35", "facecolor": color, "edgecolor": "none"})  # fmt: skip
            if name in notes:
                axis.text(x, y - 0.42, notes[name], ha="center", va="center", fontsize=8)
        axis.set(title=title, xlim=(-0.6, max(x for x, _ in places.values()) + 0.6), ylim=(-1.5, 0.4))
        axis.title.set_fontsize(10)
        axis.axis("off")
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in COLORS.values()]
    figure.legend(handles, COLORS.keys(), loc="lower center", ncols=3, fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    plt.show()
