"""Grades jobs on this machine, with several workers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from checks.kit.submissions.jobs import Job, RunSettings
from checks.kit.submissions.model import Grade
from checks.kit.submissions.work.worker import GraderFailed, OnResult, Worker, open_worker

MAX_ATTEMPTS = 2
"""How often a job is graded in which the grader, not the app, seems to have failed."""


async def grade_here(jobs: Sequence[Job], settings: RunSettings, on_result: OnResult, *, workers: int) -> None:
    """Grades the jobs, `workers` at a time, and calls `on_result` as each one ends. Raises PostgresUnavailable."""
    remaining = iter(jobs)
    workers = min(workers, len(jobs))

    async def work(worker: Worker) -> None:
        for job in remaining:  # all workers take from the same iterator
            on_result(job, await grade_job(worker, job))

    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_worker(settings, workers)) for _ in range(workers)]
        async with asyncio.TaskGroup() as tasks:
            for worker in opened:
                tasks.create_task(work(worker))


async def grade_job(worker: Worker, job: Job) -> Grade | GraderFailed:
    """Grades a job, and again if the grader failed or a check ended with an error: perhaps the machine's fault."""
    result: Grade | GraderFailed = GraderFailed("")
    for _ in range(MAX_ATTEMPTS):
        try:
            result = await worker.grade(job)
        except GraderFailed as error:
            result = error
        except Exception as error:  # one job, whatever it contains, must not end the run of all the others
            result = GraderFailed(f"{type(error).__name__}: {error}")
        if isinstance(result, Grade) and not result.has_error:
            break
    return result
