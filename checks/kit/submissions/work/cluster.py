"""Grades jobs on a Dask cluster: each Dask worker has a grading worker for each of its threads.

Dask workers run from a checkout of the same workbook: `uv run --extra cluster dask worker tcp://...`. What crosses
the network are our own dataclasses, with files as bytes; nothing of a submission is unpickled anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from distributed import Client, as_completed, get_worker
from distributed import Worker as DaskWorker
from distributed.diagnostics.plugin import WorkerPlugin

from checks.kit.lessons.errors import WorkbookError
from checks.kit.postgres import PostgresUnavailable
from checks.kit.submissions.jobs import Job, RunSettings, from_dict, to_dict
from checks.kit.submissions.model import Grade
from checks.kit.submissions.work.local import grade_job
from checks.kit.submissions.work.worker import GraderFailed, OnResult, UnfitMachine, Worker, open_worker

PLUGIN_NAME = "bookshop-grading-workers"
KEY_PREFIX = "bookshop-"
"""Begins the name of each task on the cluster, which others may use as well."""

SCHEDULER_TIMEOUT = 30
"""Seconds to wait for the scheduler, and for its first worker."""


class GradingWorkers(WorkerPlugin):  # type: ignore[misc]  # an extra has no types here
    """The grading workers of one Dask worker; `free` has those that are not grading."""

    name = PLUGIN_NAME

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings

    async def setup(self, worker: DaskWorker) -> None:
        self._stack = AsyncExitStack()
        self.free: asyncio.Queue[Worker] = asyncio.Queue()
        threads = worker.state.nthreads
        for _ in range(threads):
            self.free.put_nowait(await self._stack.enter_async_context(open_worker(self._settings, threads)))

    async def teardown(self, worker: DaskWorker) -> None:
        await self._stack.aclose()


async def grade_on_cluster(jobs: Sequence[Job], settings: RunSettings, on_result: OnResult, *, address: str) -> None:
    """Grades the jobs and calls `on_result` as each one ends. Raises WorkbookError if the cluster cannot be used."""
    try:
        client = await Client(address, asynchronous=True, timeout=SCHEDULER_TIMEOUT)
    except (OSError, TimeoutError, ValueError) as error:
        raise WorkbookError(
            f"No Dask scheduler responds at {address} ({error}). Start one with: dask scheduler --port 8786"
        ) from None
    async with client:
        await _wait_for_worker(client, address)
        try:
            await client.register_plugin(GradingWorkers(settings))
        except (UnfitMachine, PostgresUnavailable) as error:
            raise WorkbookError(f"A worker of {address} cannot grade. {error}") from None
        try:
            await _grade_all(client, jobs, on_result)
        finally:
            await client.unregister_worker_plugin(PLUGIN_NAME)


async def _wait_for_worker(client: Client, address: str) -> None:
    try:
        await client.wait_for_workers(1, timeout=SCHEDULER_TIMEOUT)
    except TimeoutError:
        raise WorkbookError(
            f"The scheduler at {address} has no workers. Start some, each from a checkout: "
            f"uv run --extra cluster dask worker {address} --nthreads 1"
        ) from None


async def _grade_all(client: Client, jobs: Sequence[Job], on_result: OnResult) -> None:
    by_key = {f"{KEY_PREFIX}{job.key}": job for job in jobs}
    futures = client.map(_grade, jobs, key=list(by_key), pure=False)
    async for future in as_completed(futures):
        job = by_key[future.key]
        if future.status == "finished":
            response = await future
            on_result(job, from_dict(response["grade"]) if "grade" in response else GraderFailed(response["failed"]))
        else:
            on_result(job, GraderFailed(str(await future.exception())))
        future.release()


async def _grade(job: Job) -> dict[str, Any]:
    """Runs on the Dask worker."""
    workers = get_worker().plugins[PLUGIN_NAME]
    worker = await workers.free.get()
    try:
        result = await grade_job(worker, job)
    finally:
        workers.free.put_nowait(worker)
    return {"grade": to_dict(result)} if isinstance(result, Grade) else {"failed": str(result)}
