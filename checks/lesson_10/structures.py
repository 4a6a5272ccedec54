"""The files of several structures of one app: what imports what, and what a change touches. For the notebook."""

from __future__ import annotations

import difflib
import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.patches import Tree, read_tree, write_tree
from checks.kit.lessons.variants import base_tree, find_variant, patched, variant_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grimp import ImportGraph

NUMBER = 10
GREY, RED, BLUE, GREEN = "#b8bec8", "#c0352c", "#2c5fa8", "#1f7a3d"

STRUCTURES = {
    "as handed out": "lessons",
    "the solution": "solutions",
    "by domain": "right_domains",
    "by layer": "right_layers",
}
"""Versions of the app by what to call them: all but the first pass all checks."""


def trees() -> dict[str, Tree]:
    """The files of each structure that is here: a course may leave out the solution, and variants."""
    lesson = find_lesson(NUMBER)
    found = {"as handed out": handed_out(lesson)}
    if lesson.solution.is_dir():
        found["the solution"] = read_tree(lesson.solution)
        for name, variant in list(STRUCTURES.items())[2:]:
            if variant_path(lesson, variant).is_file():
                one = find_variant(lesson, variant)
                found[name] = patched(one, base_tree(one))
    return found


def graph_of(tree: Tree) -> ImportGraph:
    """Which module of the app imports which, read from the files by grimp; nothing is imported."""
    import grimp

    with tempfile.TemporaryDirectory(prefix="notebook-") as scratch:
        write_tree(tree, Path(scratch))
        sys.path.insert(0, scratch)
        importlib.invalidate_caches()
        try:
            return grimp.build_graph("app", cache_dir=None)
        finally:
            sys.path.remove(scratch)
            sys.path_importer_cache.pop(scratch, None)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What can be counted in an import graph. `circles` are the modules that import themselves by a detour."""

    modules: int
    imports: int
    circles: tuple[str, ...]
    needed: Mapping[str, int]
    """How many modules of the app a process imports, by the module that is started."""


def numbers_of(graph: ImportGraph) -> Numbers:
    modules = sorted(graph.modules)
    return Numbers(
        len(modules),
        sum(len(graph.find_modules_directly_imported_by(one)) for one in modules),
        tuple(one for one in modules if one in _reached(graph, one)),
        {one: len(graph.find_upstream_modules(f"app.{one}")) for one in ("main", "worker", "report")},
    )


def most_imported(graph: ImportGraph) -> str:
    """`models 22, database 19, schemas 18`: the three modules that most others import."""
    counted = {one: len(graph.find_modules_that_directly_import(one)) for one in graph.modules}
    most = sorted(counted, key=lambda one: (-counted[one], one))[:3]
    return ", ".join(f"{one.removeprefix('app.')} {counted[one]}" for one in most)


def _reached(graph: ImportGraph, module: str) -> set[str]:
    """What a module imports, directly or not; itself, too, if it is in a circle."""
    found: set[str] = set()
    ahead = [module]
    while ahead:
        new = graph.find_modules_directly_imported_by(ahead.pop()) - found
        found |= new
        ahead += sorted(new)
    return found


def _depths(graph: ImportGraph) -> dict[str, int]:
    """How many imports away the farthest module is that a module needs. Modules of a circle have the same depth."""
    reached = {one: _reached(graph, one) for one in graph.modules}
    depths: dict[str, int] = {}
    for one in sorted(graph.modules, key=lambda one: (len(reached[one]), one)):
        below = [depths[other] for other in reached[one] if other in depths and one not in reached[other]]
        depths[one] = 1 + max(below, default=-1)
    return depths


def picture(graphs: Mapping[str, ImportGraph]) -> Any:
    """Import graphs side by side. A line leads down from a module to one that it imports; circles are red."""
    import matplotlib.pyplot as plt

    figure, panes = plt.subplots(2, -(-len(graphs) // 2), figsize=(11, 8.2), squeeze=False)
    for pane in panes.flat:
        pane.axis("off")
    for pane, (name, graph) in zip(panes.flat, graphs.items(), strict=False):
        _draw(pane, graph)
        numbers = numbers_of(graph)
        circles = f"{len(numbers.circles)} modules in a circle" if numbers.circles else "no circle"
        pane.set_title(f"{name}: {numbers.modules} modules, {numbers.imports} imports, {circles}", fontsize=10)
    figure.tight_layout()
    plt.close(figure)
    return figure


def _draw(pane: Any, graph: ImportGraph) -> None:
    depths = _depths(graph)
    rows: dict[int, list[str]] = {}
    for one in sorted(graph.modules, key=lambda one: (one.count("."), one)):
        if graph.find_modules_directly_imported_by(one) or graph.find_modules_that_directly_import(one):
            rows.setdefault(depths[one], []).append(one)
    places = {
        one: ((number + 0.5) / len(row), depth) for depth, row in rows.items() for number, one in enumerate(sorted(row))
    }
    for one, (x, y) in places.items():
        for other in sorted(graph.find_modules_directly_imported_by(one)):
            around = one in _reached(graph, other)
            style = {"color": RED, "lw": 2, "zorder": 2} if around else {"color": GREY, "lw": 0.5, "zorder": 1}
            pane.plot([x, places[other][0]], [y, places[other][1]], **style)
    for one, (x, y) in places.items():
        package = one.count(".") > 1
        in_circle = one in _reached(graph, one)
        color = RED if in_circle else GREEN if package else BLUE
        size = 12 + 5 * len(graph.find_modules_that_directly_import(one))
        pane.scatter([x], [y], s=size, color=color, zorder=3)
        if in_circle or size > 70 or one in ("app.main", "app.worker", "app.report"):
            pane.annotate(
                one.removeprefix("app."), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8, zorder=4
            )


@dataclass(frozen=True, slots=True)
class Touched:
    """What a change has touched: files, and lines that are new or gone."""

    files: tuple[str, ...]
    lines: int

    @property
    def folders(self) -> int:
        return len({name.rpartition("/")[0] for name in self.files})


def touched(tree: Tree, edits: Sequence[tuple[str, str, str]]) -> Touched:
    """Applies a change: in each file, a text in place of another one that is there once, or a new file."""
    changed = dict(tree)
    for name, old, new in edits:
        text = changed.get(name, b"").decode()
        if old and text.count(old) != 1:
            raise LookupError(f"{name} has {text.count(old)} times, and not once: {old}")
        changed[name] = (text.replace(old, new) if old else new).encode()
        compile(changed[name], name, "exec")
    names = tuple(name for name in sorted(changed) if changed[name] != tree.get(name))
    lines = 0
    for name in names:
        before, after = tree.get(name, b"").decode().splitlines(), changed[name].decode().splitlines()
        diff = list(difflib.unified_diff(before, after, n=0))[2:]
        lines += sum(line[0] in "+-" for line in diff)
    return Touched(names, lines)


DOUBLE_FROM_100 = (
    "        return self.bulk_percent if sum(line.quantity for line in basket) >= self.bulk_from else 0\n",
    "        copies = sum(line.quantity for line in basket)\n"
    "        return self.bulk_percent * (2 if copies >= 100 else 1) if copies >= self.bulk_from else 0\n",
)
LINE_TOTAL = (
    ("app/schemas.py", "    quantity: int\n    price_cents: int\n\n\nclass QuoteOut", "    quantity: int\n"
     "    price_cents: int\n    line_cents: int\n\n\nclass QuoteOut"),
)  # fmt: skip
OWNED = (
    *LINE_TOTAL,
    ("app/sales/quotes.py", "price_cents=price)", "price_cents=price, line_cents=line.quantity * price)"),
    ("app/sales/invoices.py", "price_cents=line.price_cents)\n        for",
     "price_cents=line.price_cents,\n"
     "            line_cents=line.quantity * line.price_cents)\n        for"),
)  # fmt: skip

DUE_STORED = (
    ("migrations/versions/0012_due_on.py", "", "from alembic import op\nimport sqlalchemy as sa\n\n"
     "revision = '0012'\ndown_revision = '0011'\nbranch_labels = None\ndepends_on = None\n\n\n"
     "def upgrade() -> None:\n    op.add_column('invoices', sa.Column('due_on', sa.Date))\n\n\n"
     "def downgrade() -> None:\n    op.drop_column('invoices', 'due_on')\n"),
    ("app/models.py", "    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)\n",
     "    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)\n    due_on: Mapped[date | None]\n"),
    ("app/models.py", "from datetime import datetime\n", "from datetime import date, datetime\n"),
    ("app/schemas.py", "    order_id: int\n\n\nclass CheckoutIn",
     "    order_id: int\n    due_on: date | None\n\n\nclass CheckoutIn"),
    ("app/schemas.py", "from datetime import datetime\n", "from datetime import date, datetime\n"),
)  # fmt: skip
DUE_ON = (
    *DUE_STORED,
    ("app/sales/invoices.py", "        lines=[line.model_dump() for line in lines],\n",
     "        lines=[line.model_dump() for line in lines],\n        due_on=date.today() + timedelta(days=14),\n"),
    ("app/sales/invoices.py", "from fastapi import", "from datetime import date, timedelta\n\nfrom fastapi import"),
)  # fmt: skip

CHANGES: Mapping[str, Mapping[str, Sequence[tuple[str, str, str]]]] = {
    "from 100 copies on,\nthe bulk discount is doubled": {
        "as handed out": (
            ("app/sales/pricing.py", *DOUBLE_FROM_100),
            (
                "app/sales/quotes.py",
                "        percent = max(percent, settings.bulk_percent)\n",
                "        percent = max(percent, settings.bulk_percent * (2 if quantity >= 100 else 1))\n",
            ),
            (
                "app/sales/invoices.py",
                "        percent += settings.bulk_percent\n",
                "        percent += settings.bulk_percent * (2 if copies >= 100 else 1)\n",
            ),
            (
                "app/report.py",
                "(100 - b.discount_percent) / 100)), 0) AS total_cents\n",
                "(100 - greatest(b.discount_percent,\n"
                "           CASE WHEN (SELECT sum(quantity) FROM order_lines WHERE order_id = o.id) >= 100\n"
                "                THEN 20 ELSE 0 END)) / 100)), 0) AS total_cents\n",
            ),
        ),
        "the solution": (("app/sales/pricing.py", *DOUBLE_FROM_100),),
        "by domain": (("app/sales/pricing.py", *DOUBLE_FROM_100),),
        "by layer": (
            (
                "app/domain/prices.py",
                "self.bulk_percent if copies >= self.bulk_from else 0)",
                "self.bulk_percent * (2 if copies >= 100 else 1) if copies >= self.bulk_from else 0)",
            ),
        ),
    },
    "quotes and invoices say\nwhat a line costs": {
        "as handed out": (
            *LINE_TOTAL,
            ("app/sales/quotes.py", "price_cents=price)", "price_cents=price, line_cents=line.quantity * price)"),
            (
                "app/sales/invoices.py",
                "    lines = [\n        SoldLine(title=line.book.title, quantity=line.quantity, "
                "price_cents=discounted(line.book, copies))\n        for line in ordered\n    ]\n",
                "    lines = []\n    for line in ordered:\n        price = discounted(line.book, copies)\n"
                "        lines.append(SoldLine(title=line.book.title, quantity=line.quantity, price_cents=price,\n"
                "                              line_cents=line.quantity * price))\n",
            ),
        ),
        "the solution": OWNED,
        "by domain": OWNED,
        "by layer": (
            *LINE_TOTAL,
            ("app/services/quotes.py", "price_cents=price)", "price_cents=price, line_cents=line.quantity * price)"),
            (
                "app/repositories/invoices.py",
                "price_cents=line.price_cents)\n            for",
                "price_cents=line.price_cents,\n"
                "                line_cents=line.quantity * line.price_cents)\n            for",
            ),
        ),
    },
    "an invoice says\nuntil when it is to be paid": {
        "as handed out": DUE_ON,
        "the solution": DUE_ON,
        "by domain": DUE_ON,
        "by layer": (
            *DUE_STORED,
            ("app/repositories/invoices.py", "lines: Sequence[SoldLine], total_cents: int) -> None:\n",
             "lines: Sequence[SoldLine], total_cents: int, due_on: date) -> None:\n"),
            ("app/repositories/invoices.py", "        values = {", "        values = {\"due_on\": due_on} | {"),
            ("app/repositories/invoices.py", "from collections.abc import Sequence\n",
             "from collections.abc import Sequence\nfrom datetime import date\n"),
            ("app/services/invoicing.py", "line.price_cents for line in lines))\n",
             "line.price_cents for line in lines),\n                       date.today() + timedelta(days=14))\n"),
            ("app/services/invoicing.py", "from app.domain.refusals",
             "from datetime import date, timedelta\n\nfrom app.domain.refusals"),
        ),
    },
}  # fmt: skip
"""Changes that somebody may ask for, as edits of each structure: file, old text, new text. No old text: a new file."""
