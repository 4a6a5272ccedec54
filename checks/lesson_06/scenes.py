"""What the notebook of lesson 06 needs besides its subject: which versions there are, and its pictures."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.variants import find_variant, variant_path
from checks.kit.notebook import versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GOOD, USED, REVOKED = "#1f7a3d", "#8a8a8a", "#c0352c"


def available(*targets: str) -> list[str]:
    """Those of the targets that can run here: a course may leave out solutions/ and what is made of it, or variants."""
    return [target for target in targets if target == "lessons" or _can_run(target)]


def _can_run(target: str) -> bool:
    solved = "solution" in versions(6)
    if target == "solutions":
        return solved
    lesson = find_lesson(6)
    return variant_path(lesson, target).is_file() and (solved or find_variant(lesson, target).on == "lesson")


def family_picture(rows: Sequence[Mapping[str, Any]], steps: Sequence[tuple[int, str, int]], reused: int) -> Any:
    """The rows of refresh_tokens, a line for each login, with the alarm.

    `steps` are (from, who, to): positions in `rows`. `reused` is the position of the token that came twice.
    """
    import matplotlib.pyplot as plt

    families = list(dict.fromkeys(row["family"] for row in rows))
    places: list[tuple[float, float]] = []
    for row in rows:
        line = families.index(row["family"])
        places.append((sum(place[1] == -line for place in places), -line))
    figure, pane = plt.subplots(figsize=(9, 3.4))
    for number, (row, (x, y)) in enumerate(zip(rows, places, strict=True)):
        state = "revoked" if row["revoked_at"] else "used" if row["used_at"] else "valid"
        used = "used, " if row["used_at"] and row["revoked_at"] else ""
        color = {"revoked": REVOKED, "used": USED, "valid": GOOD}[state]
        box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": color, "linewidth": 2}
        pane.text(x, y, f"token {number + 1}\n{used}{state}", ha="center", va="center", color=color, bbox=box)
    for start, who, end in steps:
        (x1, y), (x2, _) = places[start], places[end]
        pane.annotate("", (x2 - 0.27, y), (x1 + 0.27, y), arrowprops={"arrowstyle": "->", "color": "#444444"})
        pane.text((x1 + x2) / 2, y + 0.1, who, ha="center", va="bottom", fontsize=9, color="#444444")
    x, y = places[reused]
    pane.annotate(
        f"token {reused + 1} comes again: 401,\nand the whole family is revoked",
        (x, y + 0.2),
        (x, y + 0.62),
        ha="center",
        color=REVOKED,
        arrowprops={"arrowstyle": "->", "color": REVOKED, "linewidth": 2},
    )
    for line in range(len(families)):
        pane.text(-0.45, -line, f"login {line + 1}", ha="right", va="center", fontweight="bold")
    pane.set(xlim=(-0.9, max(x for x, _ in places) + 0.5), ylim=(-len(families) + 0.5, 1.05))
    pane.axis("off")
    figure.tight_layout()
    plt.close(figure)
    return figure


def refusals_picture(measured: Mapping[str, Mapping[str, Sequence[float]]]) -> Any:
    """A pane for each version of the service, all on one scale: how long each refusal took, in milliseconds."""
    import matplotlib.pyplot as plt

    figure, panes = plt.subplots(1, len(measured), figsize=(3.6 * len(measured), 2.2), sharex=True, sharey=True)
    for pane, (target, times) in zip(figure.axes or [panes], measured.items(), strict=True):
        for line, taken in enumerate(times.values()):
            pane.plot(taken, [line] * len(taken), marker="o", linestyle="", alpha=0.5, color=USED)
            pane.plot([median(taken)], [line], marker="|", markersize=18, markeredgewidth=3, color=REVOKED)
        pane.set(title=target, xlabel="ms", yticks=range(len(times)), yticklabels=list(times), ylim=(-0.6, 1.6))
        pane.set_xlim(0, 1.05 * max(max(taken) for times in measured.values() for taken in times.values()))
    figure.tight_layout()
    plt.close(figure)
    return figure
