"""Sentences for the instructor on submissions that have the same files as another one, or nearly the same code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from checks.kit.submissions.jobs import Job, handed_out_files
from checks.kit.submissions.similarity import alike, own_runs

MAX_NAMES = 5
"""Names in a sentence; of more, only their number is given."""


def likeness(
    jobs: Mapping[tuple[int, int], Job], learners: Sequence[str], solutions: Iterable[Job]
) -> dict[int, tuple[str, ...]]:
    """The sentences by the index of a submission. `jobs` are as of `make_jobs`, `solutions` those of our own files."""
    names: dict[str, list[str]] = defaultdict(list)
    for job in solutions:
        names[job.key].append(f"solutions/lesson_{job.lesson:02}")
    by_lesson: dict[int, dict[str, Job]] = defaultdict(dict)
    for job in solutions:
        by_lesson[job.lesson][job.key] = job
    for (index, _), job in jobs.items():
        names[job.key].append(learners[index])
        by_lesson[job.lesson][job.key] = job
    near = {key: found for lesson in by_lesson.values() for key, found in _near(lesson, names).items()}
    sentences: dict[int, tuple[str, ...]] = {}
    for (index, number), job in sorted(jobs.items()):
        if same := [name for name in names[job.key] if name != learners[index]]:
            sentences[index] = (*sentences.get(index, ()), f"lesson_{number:02} has the same files as {_list(same)}.")
        if similar := near.get(job.key):
            sentence = f"lesson_{number:02} has nearly the code of {_list(similar)}."
            sentences[index] = (*sentences.get(index, ()), sentence)
    return sentences


def _near(jobs: Mapping[str, Job], names: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """For each job of a lesson, by its key, who has nearly the same code in other files, and how much of it."""
    runs = {key: own_runs(job.files, handed_out_files(job.lesson)) for key, job in jobs.items()}
    near: dict[str, list[str]] = defaultdict(list)
    for one, other, share in alike(runs):
        near[one] += [f"{name} ({share:.0%})" for name in names[other]]
        near[other] += [f"{name} ({share:.0%})" for name in names[one]]
    return near


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")
