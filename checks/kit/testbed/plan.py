"""What EXPLAIN (ANALYZE, BUFFERS) said of one statement, as data and as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 75
"""Columns of a drawn plan: what a verdict has beside its margin, on a page of 80."""

BAR = 10
"""Columns of the longest bar."""

CONDITIONS = ("Index Cond", "Hash Cond", "Merge Cond", "TID Cond", "Order By", "Sort Key", "Join Filter", "Filter")
"""What EXPLAIN says of a node that tells how it finds its rows. Recheck Cond repeats the Index Cond below it."""

REMOVED = ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a plan, with what is below it in `children`.

    `kind` is PostgreSQL's name for it, such as "Index Scan" or "Insert". `relation` and `index` are the names of what
    it reads or writes, empty where there is none. `rows` are those that it passed on, `removed` those that it read and
    dropped because of a condition, both in all its `loops` together; `estimated` is how many rows the planner expected.
    `buffers` counts blocks of 8 kB that it and all below it touched, in the cache or not; a block that is touched
    twice counts twice. `conditions` are pairs such as ("Filter", "(price_cents > 100)").
    """

    kind: str
    relation: str
    index: str
    rows: int
    removed: int
    loops: int
    estimated: int
    buffers: int
    conditions: tuple[tuple[str, str], ...]
    children: tuple[Node, ...]

    @property
    def own_buffers(self) -> int:
        """The blocks that this step touched itself, without those of its `children`."""
        return max(self.buffers - sum(child.buffers for child in self.children), 0)

    @property
    def title(self) -> str:
        """`Index Scan of books by books_created_at_idx ×20`; the last part is `loops`, where there are several."""
        by = f" by {self.index}" if self.index and self.relation else f" of {self.index}" if self.index else ""
        times = f" ×{self.loops:,}" if self.loops > 1 else ""
        return self.kind + (f" of {self.relation}" if self.relation else "") + by + times

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Node]]:
        """This node and all below it, from the top, each with its depth."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """How PostgreSQL runs one statement. `print(plan)` draws it.

    `statement` is its text and `parameters` are its values as SQL, in order. `generic`: the plan was made without
    looking at the values. `tables` are the sizes in blocks of the tables that it reads or writes, by name, without
    their indexes and without long values that are stored apart (TOAST). A block has 8 kB.
    """

    statement: str
    parameters: tuple[str, ...]
    generic: bool
    root: Node
    tables: Mapping[str, int]

    @property
    def buffers(self) -> int:
        """Blocks that the statement touched, those of indexes included: compare it with `plan.tables["books"]`.

        What constraints and AFTER triggers read is not in it.
        """
        return self.root.buffers

    @property
    def rows(self) -> int:
        """Rows that the statement returned."""
        return self.root.rows

    @property
    def removed(self) -> int:
        """Rows that were read and then dropped because of a condition."""
        return sum(node.removed for node in self.nodes)

    @property
    def nodes(self) -> list[Node]:
        """All steps, from the top."""
        return [node for _, node in self.root.walk()]

    @property
    def indexes(self) -> set[str]:
        """Names of the indexes that it uses."""
        return {node.index for node in self.nodes if node.index}

    def __str__(self) -> str:
        return "\n".join(draw(self, 100))


def read(explained: Sequence[Mapping[str, Any]]) -> Node:
    """The tree of EXPLAIN's JSON. A statement with rules has several; the one with the most blocks counts."""
    return max((_node(one["Plan"]) for one in explained), key=lambda node: node.buffers)


def _node(raw: Mapping[str, Any]) -> Node:
    loops = int(raw.get("Actual Loops", 1))

    def total(name: str) -> int:
        """PostgreSQL gives the average over the loops, in whole numbers before its version 18."""
        return round(float(raw.get(name, 0)) * loops)

    return Node(
        kind=_kind(raw),
        relation=str(raw.get("Relation Name", raw.get("CTE Name", raw.get("Function Name", "")))),
        index=str(raw.get("Index Name", "")),
        rows=total("Actual Rows"),
        removed=sum(total(name) for name in REMOVED),
        loops=loops,
        estimated=int(raw.get("Plan Rows", 0)),
        buffers=int(raw.get("Shared Hit Blocks", 0)) + int(raw.get("Shared Read Blocks", 0)),
        conditions=tuple((name, _text(raw[name])) for name in CONDITIONS if name in raw),
        children=tuple(_node(child) for child in raw.get("Plans", ())),
    )


def _kind(raw: Mapping[str, Any]) -> str:
    kind = str(raw["Node Type"])
    if kind == "ModifyTable":
        return str(raw.get("Operation", kind))
    if kind == "Aggregate" and raw.get("Strategy") == "Hashed":
        return "HashAggregate"
    if kind in ("Hash Join", "Nested Loop", "Merge Join") and (join := raw.get("Join Type", "Inner")) != "Inner":
        return f"{kind} ({join})"
    return kind + (" Backward" if raw.get("Scan Direction") == "Backward" else "")


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def draw(plan: Plan, width: int = WIDTH) -> list[str]:
    """The plan as lines: a step each, with its rows, the blocks that it touched itself, and their share as a bar."""
    blocks = max(plan.buffers, 1)
    numbers = [
        (f"{node.rows:,}", f"{node.own_buffers:,}", "█" * round(BAR * node.own_buffers / blocks)) for node in plan.nodes
    ]
    rows, own = (max(len(head), *(len(number[at]) for number in numbers)) for at, head in enumerate(("rows", "blocks")))
    room = width - rows - own - BAR - 6
    lines = [f"{'':<{room}}  {'rows':>{rows}}  {'blocks':>{own}}"]
    for (depth, node), (passed, touched, bar) in zip(plan.root.walk(), numbers, strict=True):
        margin = "  " * min(depth, 12)
        first, *others = _wrapped(node.title, margin + ("-> " if depth else ""), room)
        lines.append(f"{first:<{room}}  {passed:>{rows}}  {touched:>{own}}  {bar}".rstrip())
        below = margin + "     "
        lines += others
        for name, text in node.conditions:
            lines += _wrapped(f"{name}: {text}", below, width)
        if node.removed:
            lines += _wrapped(f"read and dropped: {counted(node.removed, 'row')}", below, width)
    return [*lines, *_wrapped(summary(plan), "", width)]


def summary(plan: Plan) -> str:
    """`In all 1,021 blocks of 8 kB. The table books has 1,190 blocks. The table authors has 6 blocks.`"""
    sizes = [f"The table {name} has {counted(size, 'block')}." for name, size in plan.tables.items()]
    generic = ["The plan was made without the values of the parameters."] if plan.generic else []
    return " ".join([f"In all {counted(plan.buffers, 'block')} of 8 kB.", *sizes, *generic])


def counted(count: int, noun: str) -> str:
    """`1 block`, `14,084 blocks`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def statement_lines(plan: Plan, width: int = WIDTH, most: int = 8) -> list[str]:
    """The statement as it was sent, and its parameters."""
    lines = _wrapped(" ".join(plan.statement.split()), "", width)
    hidden = len(lines) - most
    if hidden > 0:
        lines = [*lines[: most // 2], f"… {counted(hidden, 'more line')}", *lines[len(lines) - most // 2 :]]
    values = [f"${number} = {value}" for number, value in enumerate(plan.parameters, 1)]
    return (
        lines
        + [value if len(value) <= width else f"{value[: width - 1]}…" for value in values[:4]]
        + ([f"… {counted(len(values) - 4, 'more parameter')}"] if len(values) > 4 else [])
    )


def _wrapped(text: str, margin: str, width: int) -> list[str]:
    deeper = " " * (len(margin) + 2)
    return textwrap.wrap(text, max(width, 30), initial_indent=margin, subsequent_indent=deeper) or [margin]
