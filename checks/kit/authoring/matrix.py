"""Which check is failed by which app: a check that no app fails proves nothing. `workbook dev matrix`."""

from __future__ import annotations

import os

from checks.kit.authoring.cases import AS_HANDED_OUT
from checks.kit.authoring.verify import verify
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.variants import variants
from checks.kit.report import terminal

Matrix = dict[str, list[str]]
"""The labels of the apps that fail a check, by its name."""


def declared(lesson: Lesson) -> Matrix:
    """As lesson.toml and the heads of the variants say."""
    matrix: Matrix = {entry.name: [AS_HANDED_OUT] if entry.unsolved == "fails" else [] for entry in lesson.checks}
    for variant in variants(lesson):
        for name in variant.fails:
            matrix.setdefault(name, []).append(variant.name)
    return matrix


def measured(lesson: Lesson, jobs: int) -> Matrix:
    """As every app of the lesson is graded now; a check that was not run, or broke off, is left out."""
    matrix: Matrix = {entry.name: [] for entry in lesson.checks}
    for outcome in sorted(verify([lesson], jobs), key=lambda outcome: outcome.case.label):
        for result in outcome.results:
            if result["outcome"] == "failed":
                matrix.setdefault(result["name"], []).append(outcome.case.label)
    return matrix


def show(lesson: Lesson, *, measure: bool, jobs: int) -> int:
    """Prints the matrix; the exit code is 1 if a check is failed by nothing, or by an app that must pass."""
    out = terminal.console()
    matrix = measured(lesson, jobs or os.cpu_count() or 1) if measure else declared(lesson)
    idle, wronged = [], []
    for name, labels in matrix.items():
        must_pass = [label for label in labels if label != AS_HANDED_OUT and not label.startswith("wrong_")]
        style = "" if labels and not must_pass else "bold red"
        out.print(f"{name}: {', '.join(labels) or 'failed by nothing'}", style=style, soft_wrap=True)
        wronged += [f"{name} fails on {label}, which must pass" for label in must_pass]
        if not labels:
            idle.append(name)
    for name in idle:
        out.print(f"\n✗ No app fails {name}. Write a mistake that it finds:", style="bold red", soft_wrap=True)
        command = f"workbook dev variant new wrong_... --lesson {lesson.number} --about '...' --fails {name}"
        out.print(f"  {command}", soft_wrap=True)
    for text in wronged:
        out.print(f"✗ {text}", style="bold red", soft_wrap=True)
    if not idle and not wronged:
        out.print(f"\nEach of the {len(matrix)} checks is failed by an app.", style="bold green")
    return 1 if idle or wronged else 0
